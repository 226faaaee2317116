"""A worker or an executor that is killed while it writes: nothing is lost, nothing comes twice."""

import json
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest

from tests.nights.small_night import PROJECT, environment


@pytest.mark.parametrize(
    ("master", "victim"),
    [("local[2,2]", "worker"), pytest.param("local-cluster[2,1,1024]", "executor", marks=pytest.mark.slow)],
)
def test_a_killed_attempt_is_made_again(master: str, victim: str, tmp_path: Path) -> None:
    home = str(Path(pyspark.__file__).parent)
    ended = subprocess.run(
        [sys.executable, "-m", "tests.jobs.lost_workers", str(tmp_path), victim],
        env=environment(MINDCENSUS_SPARK_MASTER=master, SPARK_HOME=home),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    made = json.loads(ended.stdout.splitlines()[-1])
    assert [rows for _, rows in made] == [7] * 4
    assert [Path(file).read_text() for file, _ in made] == ["whole"] * 4
    assert [Path(file).name[:6] for file, _ in made] == [f"part-{number}" for number in range(4)]
    assert len(list(tmp_path.glob("*.begun"))) == 2
    left = set(tmp_path.glob("part-*.parquet")) - {Path(file) for file, _ in made}
    assert left and {file.read_text() for file in left} == {"half"}, "they were killed halfway"
