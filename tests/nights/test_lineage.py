"""OpenLineage events of real stages, by the real client: to its file transport, and over HTTP to a small receiver."""

import json
import os
import re
import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from benchmarks.endings import read_manifest
from expectations.codebook import read_codebook
from expectations.errors import TooMuchQuarantined
from jobs.job import Job
from jobs.lake import ORDER, Lake, StageRecord
from jobs.lineage import list_datasets, make_client, round_rows, tell_lineage
from jobs.publish import remove_night
from tests.nights.conftest import Copy, SmallNight
from tests.nights.small_night import FIRST, CommandLine

# What the small night's people and its key would show as.
PERSON = re.compile(r"P0\d{5}|[0-9a-f]{24,}")


class Receiver(ThreadingHTTPServer):
    """Takes events over HTTP, as Marquez and others do."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.events: list[dict[str, Any]] = []


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.events.append({"path": self.path, **json.loads(body)})
        self.send_response(201)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def lake(copy_lake: Copy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_lake(tmp_path_factory.mktemp("lineage"))


@pytest.fixture
def job(lake: Path, small_night: SmallNight) -> Iterator[Job]:
    """The published night, taken up again: its stages can be told of without being run."""
    home, (book, digest) = Lake(lake), read_codebook(str(small_night.book))
    records = [StageRecord.from_json(raw) for raw in read_manifest(lake, FIRST)["stages"].values()]
    night = home.open_night(date.fromisoformat(FIRST), records)
    yield Job(home, night, book, digest, small_night.extract)
    remove_night(night)


@pytest.fixture
def events(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
    """What the real client writes of every stage, and of one that fails."""
    file = tmp_path / "events.json"
    monkeypatch.setenv(
        "OPENLINEAGE__TRANSPORT", json.dumps({"type": "file", "log_file_path": str(file), "append": True})
    )
    monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "tests")
    for stage in ORDER:
        with tell_lineage(job, stage) as outcome:
            outcome.record = StageRecord(stage) if stage == "publish" else job.night.read(stage)
    with pytest.raises(TooMuchQuarantined), tell_lineage(job, "again"):
        raise TooMuchQuarantined("2 of 7 rows break a rule")
    told: dict[str, list[dict[str, Any]]] = {}
    for line in file.read_text().splitlines():
        event = json.loads(line)
        told.setdefault(event["job"]["name"].removeprefix("mindcensus."), []).append(event)
    return told


def test_every_run_begins_and_ends(events: dict[str, list[dict[str, Any]]]) -> None:
    assert list(events) == [*ORDER, "again"]
    for stage, (start, end) in events.items():
        assert (start["eventType"], end["eventType"]) == ("START", "FAIL" if stage == "again" else "COMPLETE")
        assert start["run"]["runId"] == end["run"]["runId"]
        assert end["job"]["namespace"] == "tests"
        assert end["run"]["facets"]["nominalTime"]["nominalStartTime"] == f"{FIRST}T00:00:00Z"
    assert len({start["run"]["runId"] for start, _ in events.values()}) == len(events)


# what each stage reads | and writes
TABLES = """
    validate | | accepted design quarantine
    preprocess | accepted | features
    train | features | models
    score | features models | profiles
    aggregate|design features models profiles|cohort_sums cohorts cohorts_internal distributions quality suppressions
    report | cohorts distributions quality |
"""


@pytest.mark.parametrize("line", TABLES.strip().splitlines())
def test_inputs_and_outputs_are_the_lakes_tables(job: Job, small_night: SmallNight, line: str) -> None:
    stage, reads, writes = (part.strip() for part in line.split("|"))
    read, written = list_datasets(job, stage, job.night.read(stage))
    if stage == "validate":
        assert [dataset.name for dataset in read] == [str(small_night.extract)]
        assert dict(read[0].columns)["mood_1"] == "number"
    else:
        assert sorted(Path(dataset.name).name for dataset in read) == reads.split()
    assert sorted(Path(dataset.name).name for dataset in written) == writes.split()


def test_publishing_reads_all_and_writes_the_catalogs(events: dict[str, list[dict[str, Any]]], lake: Path) -> None:
    end = events["publish"][1]
    names = {dataset["name"].removeprefix(f"{lake}/") for dataset in end["inputs"]}
    assert {"public/cohorts", "restricted/profiles", "restricted/quarantine", "restricted/models"} < names
    written = [dataset["name"].removeprefix(f"{lake}/") for dataset in end["outputs"]]
    assert written == ["public/catalog.duckdb", "restricted/catalog.duckdb"]


def test_columns_have_names_and_types_and_rows_are_rounded(events: dict[str, list[dict[str, Any]]]) -> None:
    (profiles,) = events["score"][1]["outputs"]
    fields = {field["name"]: field["type"] for field in profiles["facets"]["schema"]["fields"]}
    assert fields["person_id"] == "string" and fields["distress_mean"] in ("float", "double")
    assert profiles["outputFacets"]["outputStatistics"]["rowCount"] == 1400  # of 1,410
    assert profiles["facets"]["version"]["datasetVersion"].startswith(f"{FIRST}/")
    rows = {Path(one["name"]).name: one["outputFacets"] for one in events["validate"][1]["outputs"]}
    assert rows["quarantine"] == {}, "30 rows: too few to be told"


def test_of_a_failure_the_exit_code_is_told_and_nothing_of_anybody_anywhere(
    events: dict[str, list[dict[str, Any]]],
) -> None:
    failed = events["again"][1]["run"]["facets"]["errorMessage"]
    assert failed["message"] == "again ended with exit code 4"
    assert failed.get("stackTrace") is None
    # Run ids have dashes, and versions of models twelve digits: no pseudonym, no digest and no delivered id is there.
    assert not PERSON.search(json.dumps(events))


def test_without_a_configuration_nothing_is_told(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OPENLINEAGE_")]:
        monkeypatch.delenv(name)
    assert make_client(job) is None
    monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "tests")
    assert make_client(job) is None, "the client would print"


def test_over_http_and_a_receiver_that_is_gone_stops_nothing(
    lake: Path, small_night: SmallNight, receiver: Receiver
) -> None:
    address = {"type": "http", "url": f"http://127.0.0.1:{receiver.server_port}", "retry": {"total": 0}}
    command = CommandLine(OPENLINEAGE__TRANSPORT=json.dumps(address))
    named = ("--lake", lake, "--run-date", FIRST, "--codebook", small_night.book)
    assert command("train", *named).code == 0
    assert [event["eventType"] for event in receiver.events] == ["START", "COMPLETE"]
    assert {event["path"] for event in receiver.events} == {"/api/v1/lineage"}
    receiver.shutdown()
    receiver.server_close()
    ended = command("train", *named)
    command.close()
    assert ended.code == 0
    assert ended.said.count("OpenLineage was not told") == 2


@pytest.mark.parametrize(("rows", "told"), [(0, None), (7, None), (99, None), (100, 100), (149, 100), (1_410, 1_400)])
def test_rows_are_told_to_the_nearest_hundred(rows: int, told: int | None) -> None:
    assert round_rows(rows) == told
