"""Commands as people type them, run one after the other in a process of their own, so that one JVM serves many."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

# What is printed by libraries goes to standard error, which is read; the answers go through a channel of their own.
LOOP = """
import json, os, sys, traceback
channel = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
from jobs.cli import main
for line in sys.stdin:
    try:
        code = main(json.loads(line))
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    print(json.dumps(code), file=channel, flush=True)
"""


@dataclass(frozen=True)
class Outcome:
    """A command's exit code and all that it wrote to standard error, its log and Spark's included."""

    code: int
    stderr: str

    @property
    def sentences(self) -> list[str]:
        """What was said to people: not the log, which is JSON."""
        return [line for line in self.stderr.splitlines() if line.startswith("mindcensus ")]


def environment() -> dict[str, str]:
    """This process's, without settings that would change whose key is used or where Spark runs."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MINDCENSUS_KEY", "PYSPARK_", "SPARK_"))}
    return kept | {"MINDCENSUS_DRIVER_MEMORY": "1g", "MINDCENSUS_SPARK_MASTER": "local[2]"}


class Commands:
    """Runs commands in one process; its log is a file in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "commands.log"
        with self.log.open("a") as log:
            program = [sys.executable, "-c", LOOP]
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(
                program, stdin=pipe, stdout=pipe, stderr=log, text=True, cwd=folder, env=environment()
            )

    def run(self, *words: str | Path) -> Outcome:
        start = self.log.stat().st_size
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the process that runs the commands has ended: " + self.log.read_text()[start:]
        with self.log.open(encoding="utf-8", errors="replace", newline="") as log:
            log.seek(start)
            return Outcome(json.loads(answer), log.read())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=60)
