"""What monitors are told of a night once it is published, through the metrics that Airflow itself is configured with.

StatsD or OpenTelemetry, or nothing where Airflow has none. Counts of people are told to the nearest hundred: whoever
sees the metrics need not be allowed to see people's tables.
"""

import json
import logging
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk.observability.stats import gauge

from night_tasks import COMMAND

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)
PREFIX = "mindcensus"


def tell_metrics(context: "Context", result: Any = None) -> None:
    """Tells of the lake's last published night; for a task's `post_execute`. What goes wrong here fails no task."""
    try:
        told = json.loads(_ask_status(context["params"]["lake"]))
        for name, value in list_metrics(told, time.time()).items():
            gauge(f"{PREFIX}.{name}", value)
    except Exception as error:
        log.warning("the night's metrics were not told: %s", type(error).__name__)


def list_metrics(status: Mapping[str, Any], now: float) -> dict[str, float]:
    """Names and values of the last night, by `mindcensus status --json`; `now` is in seconds since 1970."""
    metrics: dict[str, float] = {"failed_attempts": len(status["failed"])}
    if not status["nights"]:
        return metrics
    night = status["nights"][0]
    published = datetime.fromisoformat(night["published_at"]).timestamp()
    metrics |= {"last_publish.unixtime": published, "last_publish.age_seconds": max(0.0, now - published)}
    metrics["last_publish.public"] = float(night["release"]["public"])
    metrics |= {f"stage.{stage}.seconds": seconds for stage, seconds in night["seconds"].items()}
    metrics |= {
        f"rows.{fate}": round(rows, -2) for fate, rows in {"delivered": night["delivered"], **night["rows"]}.items()
    }
    metrics["model.refused"] = float(bool(night["refused"]))
    judged = night["rows"]["features"] + night["rows"]["quarantined"] + night["rows"]["duplicates"]
    metrics["quarantined_share"] = round(night["rows"]["quarantined"] / judged, 2) if judged else 0.0
    if drift := night["drift"]:
        metrics |= {f"drift.{what}": drift[what]["psi"] for what in ("answers", "profiles") if drift[what]}
        metrics["drift.limit"] = drift["limit"]
    return metrics


def _ask_status(lake: str) -> str:
    """Its exit code is a judgement of the night: the output counts."""
    command = [COMMAND, "status", "--lake", lake, "--json"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout
