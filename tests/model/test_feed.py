"""The training's feed: exact epochs, repeatable order, shards, clear errors, nothing left behind."""

import pickle
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model import feed as feed_module
from model.errors import ModelError
from model.feed import training_batches
from model.parquet_reader import open_reader

ITEMS = [f"item_{i}" for i in range(12)]
COLUMNS = ["number", *ITEMS, "weight", "fold"]


def make_people(start: int, count: int) -> pa.Table:
    numbers = np.arange(start, start + count)
    return pa.table(
        {
            "person_id": pa.array([f"p{number}" for number in numbers], pa.string()),
            "number": numbers,
            **{name: ((numbers + i) % 5 - 1).astype(np.int8) for i, name in enumerate(ITEMS)},
            "weight": numbers / 8,
            "fold": (numbers % 10).astype(np.int8),
            "age": pa.array([None] * count, pa.int32()),
            "name": pa.array(["x"] * count, pa.large_string()),
            "triple": pa.array([[1.0, 2.0, 3.0]] * count, pa.list_(pa.float32(), 3)),
        }
    )


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Three files of 100 people each, in row groups of 20."""
    paths = []
    for i in range(3):
        path = tmp_path / "run_date=2020-01-01" / f"part-{i}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(make_people(100 * i, 100), path, row_group_size=20, compression="zstd")
        paths.append(str(path))
    return paths


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before
    assert not [path for path in Path("/proc/self/fd").iterdir() if path.resolve().is_relative_to(tmp_path)]


def read_numbers(paths: list[str], **options: Any) -> list[int]:
    with open_reader(paths, ["number"], **{"seed": 3} | options) as reader:
        return [number for batch in reader for number in batch.number.tolist()]


def read_epochs(paths: list[str], epochs: int, **options: Any) -> list[list[int]]:
    with training_batches(paths, ["number"], **{"batch_size": 32, "seed": 5} | options) as feed:
        return [[n for batch in feed for n in batch["number"].tolist()] for _ in range(epochs)]


def test_a_batch_holds_each_persons_own_values(files: list[str]) -> None:
    with training_batches(files, COLUMNS, batch_size=64, seed=1) as feed:
        batches = list(feed)
    assert feed.rows == 300
    assert [len(batch["number"]) for batch in batches] == [64, 64, 64, 64, 44]
    for batch in batches:
        assert list(batch) == COLUMNS
        assert {batch[name].dtype for name in [*ITEMS, "fold"]} == {torch.int8}
        assert batch["weight"].dtype == torch.float64
        assert torch.equal(batch["weight"], batch["number"] / 8)
        for i, name in enumerate(ITEMS):
            assert torch.equal(batch[name].long(), (batch["number"] + i) % 5 - 1)


def test_every_epoch_holds_every_row_once_in_a_new_order(files: list[str]) -> None:
    epochs = read_epochs(files, 3)
    assert all(sorted(epoch) == list(range(300)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_rows_are_shuffled_across_row_groups(files: list[str]) -> None:
    first_batch = read_epochs(files, 1)[0][:32]
    assert len({number // 20 for number in first_batch}) > 5


def test_row_groups_are_shuffled_too_when_the_queue_is_small(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "SHUFFLE_ROWS", 20)
    first, second = read_epochs(files, 2)
    assert sorted(first) == sorted(second) == list(range(300))
    assert {number // 20 for number in first[:20]} != {number // 20 for number in second[:20]}


@pytest.mark.parametrize("seed", [0, 1, 2**32])
def test_the_same_seed_gives_the_same_order(files: list[str], seed: int) -> None:
    once = read_epochs(files, 2, seed=seed)
    torch.manual_seed(99)
    assert read_epochs(files[::-1], 2, seed=seed) == once
    assert read_epochs(files, 2, seed=seed + 1) != once
    assert read_numbers(files, seed=seed) == read_numbers(files, seed=seed)
    assert read_numbers(files, seed=seed) != read_numbers(files, seed=seed + 3)


def test_a_resumed_training_gets_the_batches_that_it_would_have_had(files: list[str]) -> None:
    assert read_epochs(files, 2, first_epoch=2) == read_epochs(files, 4)[2:]
    shard = {"shard": (1, 2)}
    assert read_epochs(files, 1, first_epoch=1, **shard) == read_epochs(files, 2, **shard)[1:]


def test_the_feed_leaves_the_models_random_numbers_alone(files: list[str]) -> None:
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    drawn = []
    with training_batches(files, ["number"], batch_size=100, seed=0) as feed:
        order = []
        for batch in feed:
            order += batch["number"].tolist()
            drawn.append(torch.rand(1))
    assert torch.equal(torch.cat(drawn), expected)
    assert order == read_epochs(files, 1, batch_size=100, seed=0)[0]


def test_without_shuffling_the_order_is_that_of_the_files(files: list[str]) -> None:
    assert read_numbers(files, shuffle=False) == list(range(300))
    assert read_numbers(files[::-1], shuffle=False, num_epochs=2) == [*range(300), *range(300)]


def test_two_shards_are_disjoint_and_complete(files: list[str]) -> None:
    shards = [read_epochs(files, 1, shard=(index, 2))[0] for index in range(2)]
    assert not set(shards[0]) & set(shards[1])
    assert sorted(shards[0] + shards[1]) == list(range(300))
    with training_batches(files, ["number"], batch_size=8, seed=0, shard=(1, 2)) as feed:
        assert feed.rows == len(shards[1]) == 140
    assert sorted(read_numbers(files, shard=(0, 2)) + read_numbers(files, shard=(1, 2))) == list(range(300))


@pytest.mark.parametrize("shard", [(0, 16), (2, 2), (-1, 2), (0, 0)])
def test_a_shard_without_rows_is_an_error(files: list[str], shard: tuple[int, int]) -> None:
    with pytest.raises(ModelError, match="Shard"):
        read_numbers(files, shard=shard)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    group_rows=st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=4),
    batch_size=st.integers(1, 12),
    seed=st.integers(0, 2**40),
)
def test_epochs_are_exact_whatever_the_files_hold(
    tmp_path_factory: pytest.TempPathFactory, group_rows: list[list[int]], batch_size: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("files")
    written = 0
    for i, groups in enumerate(group_rows):
        with pq.ParquetWriter(folder / f"{i}.parquet", make_people(0, 1).schema) as writer:
            for rows in groups:
                writer.write_table(make_people(written, rows))
                written += rows
    paths = [str(path) for path in folder.iterdir()]
    for epoch in read_epochs(paths, 2, batch_size=batch_size, seed=seed):
        assert sorted(epoch) == list(range(written))


def test_an_epoch_left_early_and_another_after_it(files: list[str]) -> None:
    with training_batches(files, ["number"], batch_size=32, seed=5) as feed:
        for _ in feed:
            break
        assert [n for batch in feed for n in batch["number"].tolist()] == read_epochs(files, 2)[1]


def test_leaving_in_the_middle_by_an_exception_leaves_nothing(files: list[str]) -> None:
    with pytest.raises(KeyError), training_batches(files, COLUMNS, batch_size=2, seed=0) as feed:
        for batch in feed:
            batch["unknown"]
    with open_reader(files, ["number"], seed=0, num_epochs=None) as reader:
        for _ in range(40):
            next(reader)


def test_list_columns_become_matrices(tmp_path: Path) -> None:
    pairs = pa.array([[float(i), float(-i)] for i in range(10)], pa.list_(pa.float32()))
    pq.write_table(pa.table({"number": range(10), "pair": pairs, "flag": [True, False] * 5}), tmp_path / "a.parquet")
    with training_batches([str(tmp_path / "a.parquet")], ["pair", "number", "flag"], batch_size=4, seed=0) as feed:
        for batch in feed:
            assert batch["pair"].shape == (len(batch["number"]), 2)
            assert torch.equal(batch["pair"], torch.stack([batch["number"], -batch["number"]], dim=1).float())
            assert torch.equal(batch["flag"].bool(), batch["number"] % 2 == 0)


def test_names_are_no_patterns(tmp_path: Path) -> None:
    table = pa.table({"q1": [1, 2], "q10": [3, 4], "q1a": [5, 6]})
    pq.write_table(table, tmp_path / "a.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_reader([str(tmp_path / "a.parquet")], ["q1"], seed=0) as reader:
            assert next(reader)._asdict().keys() == {"q1"}
    with pytest.raises(ModelError, match=r"\['q.'\]"):
        read_with(["q."], [str(tmp_path / "a.parquet")])


def read_with(columns: list[str], paths: list[str]) -> None:
    with training_batches(paths, columns, batch_size=2, seed=0):
        pass


BAD_COLUMNS = [
    (["number", "wrong"], r"part-0.parquet: has no columns \['wrong'\]"),
    (["number", "triple", "name"], r"types of columns \['triple', 'name'\]"),
    (["name"], r"types of columns \['name'\]"),
    (["number", "age"], r"part-0.parquet: columns \['age'\] hold nulls"),
    (["number", "person_id"], r"\['person_id'\] are not numbers"),
    (["run_date"], r"\['run_date'\] are not numbers"),
    ([], "No columns"),
]


@pytest.mark.parametrize(("columns", "message"), BAD_COLUMNS)
def test_columns_that_cannot_be_fed_are_named(files: list[str], columns: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_with(columns, files)


def test_files_of_two_schemas_are_named_with_the_columns_that_differ(files: list[str]) -> None:
    table = pq.read_table(files[1], partitioning=None).drop_columns(["age", "fold"]).append_column("new", [[1] * 100])
    pq.write_table(table.set_column(1, "number", table["number"].cast(pa.int32())), files[1])
    with pytest.raises(ModelError) as caught:
        read_with(["item_0"], files)
    text = str(caught.value)
    assert "part-1.parquet" in text and "part-0.parquet" in text
    for difference in ("without ['age', 'fold']", "with ['new'] besides", "number is int32, not int64"):
        assert difference in text


def test_another_order_of_columns_is_the_same_schema(files: list[str]) -> None:
    table = pq.read_table(files[1], partitioning=None)
    pq.write_table(table.select(table.column_names[::-1]), files[1])
    assert sorted(read_epochs(files, 1)[0]) == list(range(300))


def test_files_that_are_not_there_or_not_parquet_are_named(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "empty.parquet").touch()
    for path in (tmp_path / "none.parquet", tmp_path / "empty.parquet", tmp_path):
        with pytest.raises(ModelError, match=str(path)):
            read_with(["number"], [*files, str(path)])
    with pytest.raises(ModelError, match="No Parquet files"):
        read_with(["number"], [])
    with pytest.raises(ModelError, match="listed twice"):
        read_with(["number"], [*files, files[0]])
    with pytest.raises(ModelError, match="several filesystems"):
        read_with(["number"], [*files, "memory://a/b.parquet"])
    with pytest.raises(ModelError, match="no filesystem"):
        read_with(["number"], ["nowhere://a/b.parquet"])


def test_settings_that_make_no_sense(files: list[str]) -> None:
    with pytest.raises(ModelError, match="seed"):
        read_epochs(files, 1, seed=-1)
    with pytest.raises(ModelError, match="batch_size"):
        read_epochs(files, 1, batch_size=0)
    with pytest.raises(ModelError, match="thread pool"):
        read_numbers(files, pool="process")


def test_nulls_without_statistics_end_the_epoch_with_the_columns_name(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"code": pa.array([1] * 4 + [None], pa.int8())})
    pq.write_table(table, path, row_group_size=1, write_statistics=False)
    with (
        pytest.raises(ModelError, match="code"),
        training_batches([str(path)], ["code"], batch_size=1, seed=0) as feed,
    ):
        list(feed)


def test_a_filesystem_of_fsspec(files: list[str]) -> None:
    memory = fsspec.filesystem("memory")
    for i, file in enumerate(files):
        memory.put(file, f"/lake/features/run_date=2020-01-01/{i}.parquet")
    urls = [f"memory://lake/features/run_date=2020-01-01/{i}.parquet" for i in range(3)]
    try:
        assert read_epochs(urls, 2) == read_epochs(files, 2)
        assert len(read_numbers([url.replace("//", "///", 1) for url in urls])) == 300
    finally:
        memory.rm("/lake", recursive=True)


def test_paths_with_odd_characters(tmp_path: Path) -> None:
    path = tmp_path / "region=a%20b" / "what? 100% #1.parquet"
    path.parent.mkdir()
    pq.write_table(make_people(0, 5), path)
    with open_reader([str(path)], ["number", "region"], seed=0) as reader:
        assert next(reader).region.tolist() == ["a b"] * 5
    assert sorted(read_numbers([f"file://{path}"])) == list(range(5))


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle from the data was loaded",))


def test_nothing_beside_the_files_is_opened(files: list[str]) -> None:
    schema = pq.read_schema(files[0]).with_metadata({"dataset-toolkit.unischema.v1": pickle.dumps(Trap())})
    for folder in {Path(file).parent for file in files}:
        pq.write_metadata(schema, folder / "_common_metadata")
        (folder / "_SUCCESS").touch()
    assert sorted(read_numbers(files)) == list(range(300))


def test_standard_output_stays_quiet(files: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_epochs(files, 2)
    assert capfd.readouterr() == ("", "")
