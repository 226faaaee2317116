"""What monitors get of a night: over a real UDP socket from StatsD's client, and in a real OTLP request."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics.stats_utils import get_stats_factory
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

import night_metrics
from night_metrics import list_metrics, tell_metrics
from tests.dags.conftest import PROJECT

NIGHT = {
    "published_at": "2026-03-02T02:10:00+00:00",
    "seconds": {"validate": 100.5, "publish": 1.0},
    "delivered": 1_520,
    "rows": {"features": 1_410, "quarantined": 30, "duplicates": 20, "ineligible": 60, "withdrawn": 0},
    "drift": {"limit": 0.25, "answers": {"key": "mood_1", "psi": 0.021}, "profiles": None},
    "refused": ["it foretells hidden answers worse"],
    "release": {"public": False, "why": "too soon", "next_possible": "2026-03-08"},
}
STATUS = {"state": "well", "nights": [NIGHT], "failed": [], "making": [], "holder": None}
PUBLISHED = 1772417400.0
EXPECTED = {
    "failed_attempts": 0,
    "last_publish.unixtime": PUBLISHED,
    "last_publish.age_seconds": 60.0,
    "last_publish.public": 0.0,
    "stage.validate.seconds": 100.5,
    "stage.publish.seconds": 1.0,
    "rows.delivered": 1_500,
    "rows.features": 1_400,
    "rows.quarantined": 0,
    "rows.duplicates": 0,
    "rows.ineligible": 100,
    "rows.withdrawn": 0,
    "quarantined_share": 0.02,
    "model.refused": 1.0,
    "drift.answers": 0.021,
    "drift.limit": 0.25,
}


# As in a task's process, which sends what OpenTelemetry has collected when it ends.
TELL = """
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics.stats_utils import get_stats_factory
from night_metrics import tell_metrics
stats.initialize(factory=get_stats_factory(), export_legacy_names=False)
tell_metrics({"params": {"lake": "/data/lake"}})
"""


@pytest.fixture
def command(tmp_path):
    """What the lake's command prints stands in for a lake."""
    command = tmp_path / "mindcensus"
    command.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(STATUS)}\nEND\nexit 12\n")
    command.chmod(0o755)
    return command


def test_names_and_values():
    assert list_metrics(STATUS, PUBLISHED + 60) == EXPECTED
    assert list_metrics({"nights": [], "failed": [{}]}, 0.0) == {"failed_attempts": 1}


def read_packets(receiver):
    """Those that have come: whoever sent them has ended."""
    with contextlib.suppress(BlockingIOError):
        while True:
            yield receiver.recv(1024).decode()


def test_over_a_real_socket(command, monkeypatch):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver, monkeypatch.context() as settings:
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        settings.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
        settings.setenv("AIRFLOW__METRICS__STATSD_PORT", str(receiver.getsockname()[1]))
        settings.setattr(night_metrics, "COMMAND", str(command))
        stats.initialize(factory=get_stats_factory(), export_legacy_names=False)
        tell_metrics({"params": {"lake": "/data/lake"}})
        told = dict(packet.split(":", 1) for packet in read_packets(receiver) if ".mindcensus." in packet)
    stats.initialize(factory=get_stats_factory(), export_legacy_names=False)  # none again
    assert {name.removeprefix("airflow.mindcensus.") for name in told} == set(EXPECTED)
    assert told["airflow.mindcensus.stage.validate.seconds"] == "100.5|g"
    assert told["airflow.mindcensus.drift.answers"] == "0.021|g"


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(ExportMetricsServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        pass


def test_over_otlp(command):
    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.requests = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = {
            "AIRFLOW__METRICS__OTEL_ON": "True",
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://127.0.0.1:{server.server_port}/v1/metrics",
            "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
        }
        program = [sys.executable, "-c", TELL]
        subprocess.run(program, cwd=PROJECT / "dags", env=os.environ | settings, check=True, timeout=120)
        server.shutdown()
    resources = [resource for request in server.requests for resource in request.resource_metrics]
    metrics = [metric for resource in resources for scope in resource.scope_metrics for metric in scope.metrics]
    found = {metric.name: metric.gauge.data_points[0] for metric in metrics if ".mindcensus." in metric.name}
    assert {name.removeprefix("airflow.mindcensus.") for name in found} == set(EXPECTED)
    assert found["airflow.mindcensus.stage.validate.seconds"].as_double == 100.5


def test_what_goes_wrong_fails_no_task(monkeypatch):
    monkeypatch.setattr(night_metrics, "COMMAND", "/nowhere/mindcensus")
    tell_metrics({"params": {"lake": "/data/lake"}})


def test_every_metric_is_documented():
    page = (PROJECT / "docs" / "operations.md").read_text()
    for name in EXPECTED:
        name = re.sub(r"stage\.\w+\.", "stage.<stage>.", name)
        assert f"`mindcensus.{name}`" in page or f"`.{name.removeprefix('rows.')}`" in page, name
