"""What a published lake says, apart from tokens and timings; who reads it meanwhile; what must not be left in it."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

VIEWS = {
    "public": ("cohorts", "cohorts_latest", "quality", "quality_latest", "distributions", "nights"),
    "restricted": ("accepted", "quarantine", "design", "features", "profiles", "profiles_latest", "cohorts_internal"),
}
Counts = tuple[tuple[str, int], ...]


def read_view(lake: Path, zone: str, view: str) -> list[tuple[Any, ...]]:
    """All rows of a view, sorted, as a reader of the zone's catalog gets them."""
    with duckdb.connect(str(lake / zone / "catalog.duckdb"), read_only=True) as connection:
        return sorted(connection.execute(f"FROM {view}").fetchall(), key=repr)


def read_manifest(lake: Path, run_date: str) -> dict[str, Any]:
    """The manifest in force."""
    files = sorted((lake / "restricted" / "runs" / f"run_date={run_date}").glob("*.json"))
    manifest: dict[str, Any] = json.loads(files[-1].read_text())
    return manifest


def count_rows(lake: Path, zone: str) -> Counts:
    with duckdb.connect(str(lake / zone / "catalog.duckdb"), read_only=True) as connection:
        counted = [connection.execute(f"SELECT count(*) FROM {view}").fetchone() for view in VIEWS[zone]]
    return tuple((view, row[0]) for view, row in zip(VIEWS[zone], counted, strict=True) if row)


def describe_ending(lake: Path, run_date: str) -> dict[str, Any]:
    """All rows of the lake, the date's report and its manifest: apart from tokens, timings and what is made of them."""
    people = {view: read_view(lake, zone, view) for zone, views in VIEWS.items() for view in views if view != "nights"}
    manifest = read_manifest(lake, run_date)
    page = (lake / manifest["stages"]["report"].pop("details")["report"]).read_text()
    token = _find_token(manifest["token"])
    return people | {"report": token.sub("TOKEN", page), **_flatten(_forget_token(manifest, token))}


def find_differences(ending: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The names of what two endings do not have in common."""
    return [name for name in {**ending, **other} if ending.get(name) != other.get(name)]


def _flatten(value: Any, path: str = "manifest") -> dict[str, Any]:
    """One entry a leaf, so that a difference names its place."""
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        return {name: leaf for key, part in parts for name, leaf in _flatten(part, f"{path}.{key}").items()}
    return {path: value}


def _find_token(token: int) -> re.Pattern[str]:
    """A token as a folder, or the first part of a file's name: numbers of a picture have the same digits."""
    return re.compile(rf"(?<=/){token:08d}(?=[-./]|$)")


def _forget_token(value: Any, token: re.Pattern[str]) -> Any:
    if isinstance(value, dict):
        # `inputs` digest the files' names, and a name begins with the token; so does `digest`, of the report.
        dropped = ("token", "seconds", "inputs", "digest")
        return {name: _forget_token(part, token) for name, part in value.items() if name not in dropped}
    if isinstance(value, list):
        return [_forget_token(part, token) for part in value]
    return token.sub("TOKEN", value) if isinstance(value, str) else value


def find_left(lake: Path) -> list[str]:
    """What is left of unpublished nights: staging, spills, scratch files, and data files that no manifest names."""
    nights = sorted((lake / "restricted" / "runs").iterdir())
    manifests = [read_manifest(lake, folder.name.removeprefix("run_date=")) for folder in nights]
    named = {f["path"] for m in manifests for s in m["stages"].values() for fs in s["tables"].values() for f in fs}
    named |= {manifest["stages"]["report"]["details"]["report"] for manifest in manifests}
    left = list((lake / "restricted" / "staging").iterdir())
    # Of a process that is still warm there may be folders, but no files.
    left += [path for path in (lake / "restricted" / "spark").rglob("*") if not path.is_dir()]
    left += [path for path in lake.rglob(".*.tmp") if path.name != ".tmp"]
    made = [*lake.rglob("*.parquet"), *lake.rglob("reports/run_date=*/*.html")]
    left += [path for path in made if str(path.relative_to(lake)) not in named]
    missing = named - {str(path.relative_to(lake)) for path in made}
    return [str(path.relative_to(lake)) for path in left] + [f"{path} is missing" for path in sorted(missing)]


class Reader(threading.Thread):
    """Counts the rows of every view again and again, by new connections, as dashboards would."""

    def __init__(self, lake: Path, pause: float) -> None:
        super().__init__(daemon=True)
        self._lake, self._pause, self._ended, self._rounds = lake, pause, threading.Event(), 0
        self.seen: dict[str, list[Counts]] = {zone: [] for zone in VIEWS}
        self.errors: list[str] = []

    def run(self) -> None:
        while not self._ended.is_set():
            for zone, seen in self.seen.items():
                try:
                    counted = count_rows(self._lake, zone)
                except duckdb.Error as error:
                    self.errors.append(str(error))
                    continue
                if not seen or seen[-1] != counted:
                    seen.append(counted)
            self._rounds += 1
            self._ended.wait(self._pause)

    def catch_up(self) -> None:
        """Until it has counted everything once more: the round that is under way may have begun before."""
        wanted = self._rounds + 2
        while self._rounds < wanted and self.is_alive():
            time.sleep(0.01)

    def finish(self) -> None:
        self._ended.set()
        self.join()


@contextmanager
def reading(lake: Path, pause: float = 0.02) -> Iterator[Reader]:
    """A reader at work; `pause` in seconds, between two looks."""
    reader = Reader(lake, pause)
    reader.start()
    try:
        yield reader
    finally:
        reader.finish()
