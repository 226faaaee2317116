"""`python -m benchmarks.growing`: the scoring stage of a night since which few people changed, kept and in full.

Both are the real command on the same night of simulated people. Of those who changed, six in ten answered anew, two
came and two left; everybody has another weight. A night of few people tells what the start of the command, of Spark and
of its workers takes; the shares are of what is above that. The last line is JSON.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.night import FIRST, NIGHT, make_lake
from benchmarks.processes import run_watched
from benchmarks.scoring import ROOT
from expectations.codebook import read_codebook
from jobs.lake import Lake, Night, StageRecord, write_atomically
from jobs.layout import ROWS_PER_FILE, ROWS_PER_GROUP
from jobs.publish import remove_night
from model.registry import load_model
from model.spec import PERSON

BOOK = "demo_population"
FEW = 2_000
ANEW, CAME, LEFT = 0.6, 0.2, 0.2  # of those who changed


def main() -> int:
    arguments = parse_arguments()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = str(ROOT)  # for the command, and for Spark's workers
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        make_lake(folder)
        few, many = (
            measure_stage(folder, Scene(folder / "first", people, arguments.changed))
            for people in (FEW, arguments.people)
        )
    print(json.dumps({"people": arguments.people, "changed": arguments.changed, **compare(few, many)}))
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growing", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--people", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--changed", type=float, default=0.01, metavar="SHARE", help="of the people, since last night")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="where features and profiles are made")
    return parser.parse_args()


@dataclass(frozen=True)
class Scene:
    """A lake with one night, whose model and people it has, and how many people are simulated from them."""

    first: Path
    people: int
    changed: float

    def read_stages(self) -> dict[str, Any]:
        [manifest] = (self.first / "restricted/runs").glob("*/[0-9]*.json")
        stages: dict[str, Any] = json.loads(manifest.read_text())["stages"]
        return stages


@dataclass(frozen=True)
class Turn:
    """One scoring: what it took, in seconds, what the command said, and the tables that it made."""

    seconds: float
    cpu: float
    peak: float
    said: dict[str, Any]
    tables: Any


def measure_stage(folder: Path, scene: Scene) -> dict[str, Turn]:
    """The second night of two, scored in full and as it is, in a lake of its own."""
    lake = Lake(folder / f"lake-{scene.people}")
    lake.prepare()
    shutil.copytree(scene.first / "restricted" / "models", lake.restricted / "models", dirs_exist_ok=True)
    scratch = folder / "features"
    write_features(scene, scratch)
    then, now = (open_night(lake, scene, day, scratch / part) for day, part in ((FIRST, "then"), (NIGHT, "now")))
    score(lake, then)
    publish_features(lake, then)
    turns = {"full": score(lake, now, "--rescore"), "kept": score(lake, now)}
    shutil.rmtree(lake.root)
    shutil.rmtree(scratch)
    return turns


def write_features(scene: Scene, folder: Path) -> None:
    """Two nights of features as `preprocess` lays them, in the order of pseudonyms."""
    stages = scene.read_stages()
    files = [scene.first / file["path"] for file in stages["preprocess"]["tables"]["features"]]
    people = pa.concat_tables([pq.ParquetFile(file).read() for file in files]).combine_chunks()
    levels = len(load_model(scene.first / stages["train"]["details"]["folder"]).spec.items[0].levels)
    random, count = np.random.default_rng(1), -(-scene.people // ROWS_PER_FILE)
    for part in ("then", "now"):
        (folder / part).mkdir(parents=True)
    for number in range(count):
        rows = scene.people // count + (number < scene.people % count)
        drawn = people.take(random.integers(0, len(people), rows))
        drawn = drawn.set_column(0, drawn.schema.field(PERSON), draw_pseudonyms(random, number, count, rows))
        ends = np.cumsum([ANEW, CAME, LEFT]) * scene.changed
        fate = np.searchsorted(ends, random.random(rows), side="right")  # 0 anew, 1 came, 2 left, 3 unchanged
        for part, table in (("then", drawn), ("now", answer_anew(drawn, fate == 0, levels))):
            kept = table.filter(pa.array(fate != (1 if part == "then" else 2)))
            target = folder / part / f"part-{number:03d}.parquet"
            pq.write_table(kept, target, compression="zstd", row_group_size=ROWS_PER_GROUP)


def draw_pseudonyms(random: np.random.Generator, number: int, count: int, rows: int) -> pa.Array:
    """As many pseudonyms, rising, of the file's part of all that there can be."""
    first, after = (2**64 * place // count for place in (number, number + 1))
    heads = np.sort(random.integers(first, after, rows, dtype=np.uint64)).astype(">u8")
    tails = random.integers(0, 256, (rows, 24), dtype=np.uint8)
    names = np.hstack([heads.view(np.uint8).reshape(rows, 8), tails]).tobytes().hex()
    return pa.array([names[place : place + 64] for place in range(0, 64 * rows, 64)])


def answer_anew(people: pa.Table, who: np.ndarray[Any, Any], levels: int) -> pa.Table:
    """The first item's answer is another one, and everybody's weight."""
    codes = people.column(1).to_numpy().copy()
    codes[who] = (codes[who] + 2) % (levels + 1) - 1
    weight = people.schema.get_field_index("weight")
    heavier = pa.array(1.01 * people.column("weight").to_numpy())
    changed = people.set_column(1, people.schema.field(1), pa.array(codes, pa.int8()))
    return changed.set_column(weight, people.schema.field(weight), heavier)


def open_night(lake: Lake, scene: Scene, day: Any, features: Path) -> Night:
    """A night that waits to be scored."""
    records = {name: StageRecord.from_json(raw) for name, raw in scene.read_stages().items()}
    book, digest = read_codebook(BOOK)
    told = {**records["validate"].details, "codebook": {"name": book.codebook, "version": 1, "sha256": digest}}
    night = lake.open_night(day, [replace(records["validate"], tables={}, details=told), records["train"]])
    night.write(StageRecord("preprocess", tables={"features": night.adopt(list_parquet(features), "features")}))
    return night


def list_parquet(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def publish_features(lake: Lake, night: Night) -> None:
    """What the next night's scoring reads of a manifest."""
    manifest = {
        "run_date": night.run_date.isoformat(),
        "token": night.token,
        "stages": {stage: record.to_json() for stage, record in night.records().items()},
    }
    folder = lake.restricted / "runs" / f"run_date={night.run_date.isoformat()}"
    folder.mkdir(parents=True)
    write_atomically(folder / f"{night.token:08d}.json", json.dumps(manifest))
    remove_night(night)


def score(lake: Lake, night: Night, *options: str) -> Turn:
    named = ["--lake", str(lake.root), "--run-date", night.run_date.isoformat(), "--codebook", BOOK]
    ended = run_watched(["mindcensus", "score", *named, *options])
    if ended.code:
        sys.exit(f"the scoring of {night.run_date} ended with {ended.code}: {ended.lines[-1][1]}")
    [said] = [line for line in read_lines(ended.lines) if line.get("event") == "profiles made"]
    turn = Turn(
        ended.seconds, ended.usage.samples[-1][1], ended.usage.peak, said, night.read("score").to_json()["tables"]
    )
    print(f"{said}, {turn.seconds:.1f} s, {turn.cpu:.1f} CPU s", file=sys.stderr)
    return turn


def read_lines(lines: list[tuple[float, str]]) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for _, line in lines if line.startswith("{"))


def compare(few: dict[str, Turn], many: dict[str, Turn]) -> dict[str, Any]:
    full, kept = many["full"], many["kept"]
    above = {name: (turn.seconds - few[name].seconds, turn.cpu - few[name].cpu) for name, turn in many.items()}
    inference = {name: turn.said["inference_cpu_seconds"] for name, turn in many.items()}
    return {
        "profiles": kept.said["profiles"],
        "kept": kept.said["kept"],
        "scored": kept.said["scored"],
        "equal": kept.tables == full.tables,
        "inference_cpu_seconds": inference,
        "inference_cpu_share": round(inference["kept"] / inference["full"], 4),
        "stage_seconds": {name: round(seconds, 1) for name, (seconds, _) in above.items()},
        "stage_time_share": round(above["kept"][0] / above["full"][0], 3),
        "stage_cpu_seconds": {name: round(cpu, 1) for name, (_, cpu) in above.items()},
        "stage_cpu_share": round(above["kept"][1] / above["full"][1], 3),
        "start_up_seconds": {name: round(turn.seconds, 1) for name, turn in few.items()},
        "peak_pss_mib": {name: round(turn.peak) for name, turn in many.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
