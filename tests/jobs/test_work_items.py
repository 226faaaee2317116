"""How row groups are dealt out, and which attempt's file counts."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.work_items import WorkItem, deal_work, write_item


def write_groups(file: Path, *sizes: int) -> Path:
    with pq.ParquetWriter(file, pa.schema([("n", pa.int64())])) as writer:
        for size in sizes:
            writer.write_table(pa.table({"n": np.arange(size)}))
    return file


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        # rows of the row groups, file by file       row groups of each item, by file
        ([(100,)], [{0: (0,)}]),
        ([(100, 0, 100)], [{0: (0, 2)}]),
        ([(0,)], [{}]),
        ([(250, 10, 10)], [{0: (0,)}, {0: (1, 2)}]),
        ([(100, 100, 100), (50,)], [{0: (0, 1)}, {0: (2,), 1: (0,)}]),
        ([(30,)] * 9, [dict.fromkeys(range(7), (0,)), {7: (0,), 8: (0,)}]),
    ],
)
def test_row_groups_are_dealt_by_their_rows(files, expected, tmp_path):
    paths = [write_groups(tmp_path / f"{number}.parquet", *sizes) for number, sizes in enumerate(files)]
    items = deal_work(paths, tmp_path, 200)
    assert [item.pieces for item in items] == [
        tuple((str(paths[file]), groups) for file, groups in item.items()) for item in expected
    ]
    assert len({item.target for item in items}) == len(items)


def test_many_tiny_files_are_few_items(tmp_path):
    paths = [write_groups(tmp_path / f"{number:04d}.parquet", 5) for number in range(500)]
    assert len(deal_work(paths, tmp_path, 1_000)) == 3


def test_each_attempt_has_a_file_of_its_own(tmp_path):
    """A repeated attempt leaves the first one's file alone: the driver names the one whose result it got."""
    item = WorkItem((), str(tmp_path / "part-000003"))

    def write(pieces, file):
        file.write_text("made")
        return 7

    first, second = write_item(item, write), write_item(item, write)
    assert first.rows == second.rows == 7 and first.file != second.file
    assert Path(first.file).exists() and Path(second.file).exists()
    assert sorted([first.file, second.file])[0].startswith(item.target)
