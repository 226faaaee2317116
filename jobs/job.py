"""What every stage is given, and the log that it writes to."""

import logging
import sys
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import structlog
from pyspark.logger import PySparkLogger

from expectations.codebook import Codebook
from jobs.lake import Lake, Night
from jobs.progress import hear_model


@dataclass(frozen=True)
class Job:
    """One stage's work: the night it adds to, the codebook, and the extract where one was named."""

    lake: Lake
    night: Night
    book: Codebook
    codebook_sha256: str
    extract: Path | None = None
    force_retrain: bool = False
    keep_model: bool = False
    reason: str | None = None
    rescore: bool = False

    @property
    def run_date(self) -> date:
        return self.night.run_date

    log: Any = field(default_factory=structlog.get_logger)


def configure_logs() -> None:
    """One JSON object a line on standard error; libraries speak from warnings on."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    for name in ("DataFrameQueryContextLogger", "SQLQueryContextLogger"):
        # Spark's errors may quote a row; jobs.errors tells what can be told of them.
        PySparkLogger.getLogger(name).disabled = True
    # So does Great Expectations where an expectation cannot be judged.
    logging.getLogger("great_expectations").setLevel(logging.CRITICAL + 1)
    hear_model()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        # Standard error as it is when a line is written: whoever runs commands in one process may exchange it.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
