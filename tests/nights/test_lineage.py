"""OpenLineage events of real stages, by the real client: to its file transport, and over HTTP to a small receiver."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from jobs.lineage import READS, round_rows
from tests.nights.conftest import Copy, SmallNight
from tests.nights.small_night import FIRST, CommandLine

# What the small night's people and its key would show as.
PERSON = re.compile(r"P0\d{5}|[0-9a-f]{24,}")
REPLAYED = ("score", "report", "publish")


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


@pytest.fixture(scope="module")
def lake(copy_lake: Copy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_lake(tmp_path_factory.mktemp("lineage"))


@pytest.fixture(scope="module")
def events(lake: Path, small_night: SmallNight, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Of stages of the published night that run again, and of one that fails."""
    file = tmp_path_factory.mktemp("events") / "events.json"
    transport = json.dumps({"type": "file", "log_file_path": str(file), "append": True})
    command = CommandLine(OPENLINEAGE__TRANSPORT=transport, OPENLINEAGE_NAMESPACE="tests")
    named = ("--lake", lake, "--run-date", FIRST, "--codebook", small_night.book)
    for stage in REPLAYED:
        ended = command(stage, *named)
        assert ended.code == 0, ended.said
    assert command("validate", *named, "--extract", lake / "nowhere").code == 3
    command.close()
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_run_begins_and_ends(events: list[dict[str, Any]]) -> None:
    told = [(event["job"]["name"], event["eventType"]) for event in events]
    well = [(f"mindcensus.{stage}", state) for stage in REPLAYED for state in ("START", "COMPLETE")]
    assert told == [*well, ("mindcensus.validate", "START"), ("mindcensus.validate", "FAIL")]
    runs = [event["run"]["runId"] for event in events]
    assert runs[::2] == runs[1::2]
    assert len(set(runs)) == len(runs) / 2
    assert {event["job"]["namespace"] for event in events} == {"tests"}
    times = {event["run"]["facets"]["nominalTime"]["nominalStartTime"] for event in events}
    assert times == {f"{FIRST}T00:00:00Z"}


def test_inputs_and_outputs_are_the_lakes_tables(lake: Path, events: list[dict[str, Any]]) -> None:
    ended = {event["job"]["name"]: event for event in events if event["eventType"] == "COMPLETE"}
    names = {
        job: [[dataset["name"].removeprefix(f"{lake}/") for dataset in event[side]] for side in ("inputs", "outputs")]
        for job, event in ended.items()
    }
    assert names["mindcensus.score"] == [["restricted/features", "restricted/models"], ["restricted/profiles"]]
    assert names["mindcensus.report"] == [["public/cohorts", "public/distributions", "public/quality"], []]
    read, written = names["mindcensus.publish"]
    assert {"public/cohorts", "restricted/profiles", "restricted/quarantine", "restricted/models"} < set(read)
    assert written == ["public/catalog.duckdb", "restricted/catalog.duckdb"]


def test_columns_have_names_and_types_and_rows_are_rounded(events: list[dict[str, Any]]) -> None:
    (profiles,) = next(e for e in events if (e["job"]["name"], e["eventType"]) == ("mindcensus.score", "COMPLETE"))[
        "outputs"
    ]
    fields = {field["name"]: field["type"] for field in profiles["facets"]["schema"]["fields"]}
    assert fields["person_id"] == "string" and fields["distress_mean"] == "float"
    assert profiles["outputFacets"]["outputStatistics"]["rowCount"] == 1400  # of 1,410
    assert profiles["facets"]["version"]["datasetVersion"].startswith(f"{FIRST}/")


def test_of_a_failure_the_exit_code_is_told_and_nothing_of_anybody_anywhere(events: list[dict[str, Any]]) -> None:
    failed = events[-1]["run"]["facets"]["errorMessage"]
    assert failed["message"] == "validate ended with exit code 3"
    assert failed.get("stackTrace") is None
    # Run ids have dashes, and tokens are short: no pseudonym and no digest is left.
    assert not PERSON.search(json.dumps(events))


def test_over_http_and_a_receiver_that_is_gone_stops_nothing(
    lake: Path, small_night: SmallNight, receiver: Receiver
) -> None:
    named = ("--lake", lake, "--run-date", FIRST, "--codebook", small_night.book)
    command = CommandLine(OPENLINEAGE_URL=f"http://127.0.0.1:{receiver.server_port}")
    assert command("report", *named).code == 0
    assert [event["eventType"] for event in receiver.events] == ["START", "COMPLETE"]
    assert {event["path"] for event in receiver.events} == {"/api/v1/lineage"}
    command.close()

    nobody = json.dumps({"type": "http", "url": "http://127.0.0.1:9", "retry": {"total": 0}})
    command = CommandLine(OPENLINEAGE__TRANSPORT=nobody)
    ended = command("report", *named)
    command.close()
    assert ended.code == 0
    assert ended.said.count("OpenLineage was not told") == 2


def test_stages_name_the_tables_that_they_read() -> None:
    assert set(READS) == {"preprocess", "train", "score", "aggregate", "report"}


@pytest.mark.parametrize(("rows", "told"), [(0, None), (7, None), (99, None), (100, 100), (149, 100), (1_410, 1_400)])
def test_rows_are_told_to_the_nearest_hundred(rows: int, told: int | None) -> None:
    assert round_rows(rows) == told
