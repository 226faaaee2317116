"""The adapter's stand-ins, seen through Petastorm itself: folders, partitions, filesystems, order, threads."""

import pickle
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from model.errors import ModelError
from model.petastorm_adapter import HIVE_NULL, ParquetDataset, install, load, split_row_groups

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:petastorm", "ignore::DeprecationWarning")


def read_folder(
    folder: Path | str | list[str], columns: list[str] | None = None, **options: Any
) -> dict[str, list[Any]]:
    url = f"file://{folder}" if isinstance(folder, Path) else folder
    options = {"workers_count": 2, "shuffle_row_groups": False} | options
    reader = load("petastorm").make_batch_reader(url, schema_fields=columns, **options)
    rows: dict[str, list[Any]] = {}
    try:
        for batch in reader:
            for name, values in batch._asdict().items():
                rows.setdefault(name, []).extend(values.tolist())
    finally:
        reader.stop()
        reader.join()
    return rows


def write_file(path: Path, rows: int = 4, row_group_size: int = 2, start: int = 0, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"id": np.arange(start, start + rows), **columns})
    pq.write_table(table, path, row_group_size=row_group_size, compression="zstd")
    return path


def test_install_can_be_called_again_and_leaves_no_false_modules_behind() -> None:
    install()
    install()
    assert "pyarrow.filesystem" not in sys.modules
    assert "pyarrow.hdfs" not in sys.modules
    assert not hasattr(pq.ParquetDataset, "pieces")


def test_importing_the_adapter_alone_makes_petastorm_work_in_a_fresh_interpreter() -> None:
    code = (
        "from model.petastorm_adapter import load; load('petastorm.pytorch'); import petastorm; petastorm.make_reader"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_scalar_types_come_back_as_written(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "i8": pa.array([-1, 0, 3, 127], pa.int8()),
        "i32": pa.array([1, 2, 3, 4], pa.int32()),
        "f32": pa.array([0.5, 1.5, -2, 4], pa.float32()),
        "flag": pa.array([True, False, True, True]),
        "text": pa.array(["a", "", "ç", "d"]),
    }
    write_file(tmp_path / "a.parquet", **columns)
    rows = read_folder(tmp_path)
    assert {name: rows[name] for name in columns} == {name: array.to_pylist() for name, array in columns.items()}


def test_a_wide_table_and_a_list_column(tmp_path: Path) -> None:
    wide = {f"c{i}": np.full(6, i, np.int16) for i in range(1000)}
    lists = pa.array([[float(i), float(i + 1)] for i in range(6)], pa.list_(pa.float32()))
    write_file(tmp_path / "a.parquet", rows=6, row_group_size=4, **wide, pair=lists)
    rows = read_folder(tmp_path)
    assert rows["c999"] == [999] * 6
    assert rows["pair"] == lists.to_pylist()


def test_lists_of_unequal_length_are_an_error(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet", rows=2, pair=pa.array([[1.0], [1.0, 2.0]]))
    with pytest.raises(RuntimeError, match="pair"):
        read_folder(tmp_path)


HIVE = [
    # folders              the key's values as read
    (["region=north", "region=south"], ["north", "south"]),
    (["region=1", "region=12", "region=-3"], [1, 12, -3]),
    (["region=1", "region=x"], ["1", "x"]),
    (["region=a%20b%2Fc", "region=%C3%A7"], ["a b/c", "ç"]),
    (["region=2020-01-02"], ["2020-01-02"]),
]


@pytest.mark.parametrize(("folders", "values"), HIVE)
def test_hive_keys(tmp_path: Path, folders: list[str], values: list[Any]) -> None:
    for i, folder in enumerate(folders):
        write_file(tmp_path / folder / "a.parquet", start=10 * i)
    rows = read_folder(tmp_path)
    assert dict(zip(rows["id"], rows["region"], strict=True)) == {
        10 * i + j: value for i, value in enumerate(values) for j in range(4)
    }
    only_keys = read_folder(tmp_path, ["region"])
    assert Counter(only_keys["region"]) == Counter(dict.fromkeys(values, 4))
    assert sorted(read_folder(tmp_path, ["id"])["id"]) == sorted(rows["id"])


def test_hive_keys_agree_with_arrow_on_folders_that_arrow_writes(tmp_path: Path) -> None:
    table = pa.table({"id": range(6), "year": [2020, 2020, 2021, 2021, 2022, 2022], "who": ["a b", "é/", "a b"] * 2})
    ds.write_dataset(table, tmp_path, format="parquet", partitioning=["year", "who"], partitioning_flavor="hive")
    rows = read_folder(tmp_path)
    assert sorted(zip(rows["id"], rows["year"], rows["who"], strict=True)) == sorted(
        zip(*(table.column(name).to_pylist() for name in ("id", "year", "who")), strict=True)
    )


@pytest.mark.parametrize("other", ["7", "north"])
def test_rows_under_a_null_key_are_read_and_the_key_itself_is_refused(tmp_path: Path, other: str) -> None:
    write_file(tmp_path / f"region={HIVE_NULL}" / "a.parquet")
    write_file(tmp_path / f"region={other}" / "a.parquet", start=4)
    assert sorted(read_folder(tmp_path, ["id"])["id"]) == list(range(8))
    dataset = ParquetDataset(str(tmp_path))
    assert dataset.partitions is not None
    assert dataset.partitions[0].dictionary.null_count == 1
    tables = [piece.read(["id"], dataset.partitions) for piece in dataset.pieces]
    assert {value for table in tables for value in table.column("region").to_pylist()} == {
        None,
        int(other) if other == "7" else other,
    }
    with pytest.raises(ModelError, match="region"):
        read_folder(tmp_path, ["id", "region"])


def test_files_partitioned_in_different_ways_are_refused(tmp_path: Path) -> None:
    write_file(tmp_path / "region=1" / "a.parquet")
    write_file(tmp_path / "year=1" / "a.parquet")
    with pytest.raises(ModelError, match="partitioned"):
        read_folder(tmp_path)


def test_empty_files_and_empty_row_groups_are_passed_over(tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.int64()), ("pair", pa.list_(pa.int64()))])
    empty = schema.empty_table()
    some = pa.table({"id": [1, 2], "pair": [[1, 2], [3, 4]]}, schema=schema)
    pq.write_table(empty, tmp_path / "a.parquet")
    with pq.ParquetWriter(tmp_path / "b.parquet", schema) as writer:
        for table in (empty, some, empty, some):
            writer.write_table(table)
    assert pq.read_metadata(tmp_path / "b.parquet").num_row_groups == 4
    assert read_folder(tmp_path)["pair"] == [[1, 2], [3, 4]] * 2
    assert len(split_row_groups(ParquetDataset(str(tmp_path)))) == 2


def test_markers_checksums_and_temporary_files_are_left_alone(tmp_path: Path) -> None:
    write_file(tmp_path / "run_date=2020-01-01" / "a.parquet")
    write_file(tmp_path / "_temporary" / "0" / "run_date=2020-01-01" / "a.parquet", start=100)
    write_file(tmp_path / ".staging" / "b.parquet", start=200)
    for name in (
        "_SUCCESS",
        "._SUCCESS.crc",
        "run_date=2020-01-01/.a.parquet.crc",
        "run_date=2020-01-01/a.parquet.crc",
    ):
        (tmp_path / name).write_bytes(b"not parquet")
    assert read_folder(tmp_path, ["id"])["id"] == [0, 1, 2, 3]


def test_a_list_of_files_and_a_single_file(tmp_path: Path) -> None:
    files = [write_file(tmp_path / f"run_date=2020-01-01/{i}.parquet", start=10 * i) for i in range(3)]
    urls = [f"file://{file}" for file in (files[0], files[2])]
    assert read_folder(urls)["id"] == [0, 1, 2, 3, 20, 21, 22, 23]
    assert read_folder(files[1])["run_date"] == ["2020-01-01"] * 4


def test_a_filesystem_of_fsspec() -> None:
    memory = fsspec.filesystem("memory")
    for i in range(2):
        with memory.open(f"/adapter/t/year=202{i}/a.parquet", "wb") as sink:
            pq.write_table(pa.table({"id": [i, i + 10]}), sink)
    try:
        rows = read_folder("memory://adapter/t")
    finally:
        memory.rm("/adapter", recursive=True)
    assert (rows["id"], rows["year"]) == ([0, 10, 1, 11], [2020, 2020, 2021, 2021])


def test_a_piece_can_be_pickled(tmp_path: Path) -> None:
    write_file(tmp_path / "year=1" / "a.parquet")
    dataset = ParquetDataset(str(tmp_path))
    for piece in (*dataset.pieces, *split_row_groups(dataset)):
        again = pickle.loads(pickle.dumps(piece))
        assert again.get_metadata().num_rows == 4
        assert again.read(["id"], dataset.partitions).equals(piece.read(["id"], dataset.partitions))


def test_a_dataset_shows_what_petastorm_asks_for(tmp_path: Path) -> None:
    file = write_file(tmp_path / "a.parquet")
    pq.write_metadata(pq.read_schema(file), tmp_path / "_common_metadata")
    pq.write_metadata(pq.read_schema(file), tmp_path / "_metadata")
    dataset = ParquetDataset(str(tmp_path))
    assert [piece.path for piece in dataset.pieces] == [str(file)]
    assert dataset.metadata_path == f"{tmp_path}/_metadata"
    assert dataset.metadata is not None and dataset.common_metadata is not None
    assert dataset.partitions is None
    assert dataset.paths == str(tmp_path)
    with dataset.fs.open(str(file)) as source:
        assert source.read(4) == b"PAR1"
    dataset.fs.rm(f"{tmp_path}/_metadata")
    assert not dataset.fs.exists(f"{tmp_path}/_metadata")


def test_the_process_pool_is_refused_with_the_reason(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet")
    with pytest.raises(ModelError, match="thread pool"):
        read_folder(tmp_path, reader_pool_type="process")


def test_filters_are_refused(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet")
    with pytest.raises(ModelError, match="filters"):
        read_folder(tmp_path, filters=[("id", "=", 1)])


def test_nulls_that_no_statistics_count_are_refused_as_they_are_read(tmp_path: Path) -> None:
    for column in (pa.array([1, None], pa.int8()), pa.array([[1], [None]]), pa.array(["a", None])):
        table = pa.table({"id": [1, 2], "gap": column})
        pq.write_table(table, tmp_path / "a.parquet", write_statistics=False)
        with pytest.raises(ModelError, match="gap"):
            read_folder(tmp_path)
        assert read_folder(tmp_path, ["id"]) == {"id": [1, 2]}


class EchoWorker:
    """A worker of Petastorm's pool that publishes what it is given."""

    def __init__(self, worker_id: int, publish_func: Any, args: Any) -> None:
        self.worker_id = worker_id
        self.publish_func = publish_func

    def process(self, number: int) -> None:
        self.publish_func(number)


class LateVentilator:
    """Hands out all its work at the n-th time that it is asked whether it has done so: the worst moment."""

    def __init__(self, pool: Any, numbers: list[int], late: int) -> None:
        self.pool, self.numbers, self.late = pool, numbers, late

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def processed_item(self) -> None: ...

    def completed(self) -> bool:
        self.late -= 1
        if self.late == 0:
            for number in self.numbers:
                self.pool.ventilate(number)
        return self.late <= 0


@pytest.mark.parametrize("late", [1, 2, 3])
@pytest.mark.parametrize("numbers", [[7], [1, 2, 3]])
def test_results_keep_their_order_and_the_last_is_not_lost(numbers: list[int], late: int) -> None:
    pool = load("petastorm.workers_pool.thread_pool").ThreadPool(2)
    pool.start(EchoWorker, None, LateVentilator(pool, numbers, late))
    results = []
    with pytest.raises(load("petastorm.workers_pool").EmptyResultError):
        while True:
            results.append(pool.get_results())
    pool.stop()
    pool.join()
    assert results == numbers


def test_threads_that_switch_all_the_time_lose_nothing(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet", rows=3, row_group_size=1)
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        assert all(read_folder(tmp_path) == {"id": [0, 1, 2]} for _ in range(100))
    finally:
        sys.setswitchinterval(switching)


def test_no_file_stays_open_and_no_thread_stays(tmp_path: Path) -> None:
    write_file(tmp_path / "a.parquet", rows=40, row_group_size=2)
    before = set(threading.enumerate())
    reader = load("petastorm").make_batch_reader(f"file://{tmp_path}", workers_count=2)
    next(reader)
    reader.stop()
    reader.join()
    assert not [path for path in Path("/proc/self/fd").iterdir() if path.resolve().is_relative_to(tmp_path)]
    assert set(threading.enumerate()) <= before
