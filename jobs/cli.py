"""The `mindcensus` command: a subcommand a stage, `run` for all of them, and what serves nights.

Exit codes: 0 done, 1 a fault of the machine (may be tried again), 2 usage, 3 contract broken, 4 too much quarantined,
5 another run holds the lake, 6 a release waits to be signed off, 7 public tables give protected figures away. Of
`status`: 10 the last night is late, 11 it failed, 12 it drifted.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog

from expectations.codebook import Codebook, find_codebook, read_codebook
from jobs.attempts import note_attempt
from jobs.cli_lake import add_lake_commands, read_date
from jobs.cli_people import add_people_commands
from jobs.errors import DONE, UsageError, exit_code, explain_fault, name_fault
from jobs.job import Job, configure_logs
from jobs.lake import ORDER, Lake, Night, StageRecord, check_kept
from jobs.lineage import tell_lineage
from jobs.profiling import profile_stage
from jobs.progress import watch_progress
from jobs.provenance import hash_code
from jobs.publish import refresh, remove_night, remove_unnamed
from jobs.supervised import end_with_supervisor
from jobs.withdrawn import check_withdrawn

DEMO_PEOPLE = 50_000
RESCORE = "score everybody, also those whose answers and model are unchanged"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code. An error that people can mend is one sentence, without a traceback."""
    # People's tables are for the lake's owner alone, also those files that libraries create.
    os.umask(0o077)
    configure_logs()
    end_with_supervisor()
    arguments = build_parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except Exception as error:
        sentence = explain_fault(error)
        if sentence is None:
            # Its own words may quote a row: where it happened is told, what it said is not.
            print("".join(traceback.format_tb(error.__traceback__)), end="", file=sys.stderr)
            sentence = f"a fault of the program, {name_fault(error)}; its message is withheld, it may hold an answer"
        print(f"mindcensus {arguments.command}: {sentence}", file=sys.stderr)
        return exit_code(error)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mindcensus", description=__doc__)
    code = f"mindcensus {version('mindcensus')}, code_sha256 {hash_code()}"
    parser.add_argument("--version", action="version", version=code, help="version and digest, as manifests have them")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    lake = argparse.ArgumentParser(add_help=False)
    lake.add_argument("--lake", type=Path, required=True, metavar="DIR", help="where the tables are")
    night = argparse.ArgumentParser(add_help=False, parents=[lake])
    night.add_argument("--run-date", type=read_date, required=True, metavar="YYYY-MM-DD", help="the night's date")
    night.add_argument("--codebook", required=True, metavar="NAME|FILE", help="what the extract's columns mean")
    stages = argparse.ArgumentParser(add_help=False, parents=[night])
    stages.add_argument("--extract", type=Path, metavar="PATH", help="the delivered file or folder; none = replay")
    for stage in ORDER:
        command = commands.add_parser(stage, parents=[stages], help=_describe(stage))
        command.set_defaults(run=run_stages, stages=[stage], force_retrain=False)
        if stage == "score":
            command.add_argument("--rescore", action="store_true", help=RESCORE)
        if stage == "publish":
            command.add_argument("--reason", metavar="TEXT", help="why a published date is corrected")
        if stage == "train":
            either = command.add_mutually_exclusive_group()
            either.add_argument("--force-retrain", action="store_true", help="train although none is due")
            either.add_argument("--keep-model", action="store_true", help="keep a model in force although one is due")
            told = "only say whether a training is needed (there is no model to use), due, or the model kept"
            command.add_argument("--check", action="store_true", help=told)
    everything = commands.add_parser("run", parents=[stages], help="all stages in order, without Airflow")
    everything.add_argument("--force-retrain", action="store_true", help="train although none is due")
    everything.add_argument("--rescore", action="store_true", help=RESCORE)
    everything.add_argument("--profile", action="store_true", help="write where the time of every stage went")
    everything.set_defaults(run=run_stages, stages=list(ORDER))
    told = "which answers moved which trait, on a published night: a table for everybody, or one person's in words"
    explain = commands.add_parser("explain", parents=[night], help=told)
    explain.add_argument("--person-id", metavar="PSEUDONYM", help="print this person's alone, and write nothing")
    explain.add_argument("--reason", metavar="TEXT", help="why one person's data is read: for the access log")
    explain.set_defaults(run=run_explain)
    told = "draw a public-use extract of people who do not exist from a published night's model"
    synthesis = commands.add_parser("synthesize", parents=[night], help=told)
    synthesis.add_argument("--people", type=int, required=True, metavar="N")
    synthesis.add_argument("--seed", type=int, default=1, metavar="S", help="the same seed gives the same file")
    synthesis.add_argument("--out", type=Path, required=True, metavar="DIR", help="the new folder of the extract")
    synthesis.set_defaults(run=run_synthesize)
    add_people_commands(commands, lake)
    add_lake_commands(commands, lake)
    demo = commands.add_parser("demo", help="write a simulated extract with known truth")
    demo.add_argument("--people", type=int, default=DEMO_PEOPLE, metavar="N")
    demo.add_argument("--seed", type=int, default=1, metavar="S")
    demo.add_argument("--run-date", type=read_date, required=True, metavar="YYYY-MM-DD", help="when it is delivered")
    demo.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the extract")
    demo.set_defaults(run=run_demo)
    return parser


def _describe(stage: str) -> str:
    words = {
        "validate": "judge the extract; set bad rows aside",
        "preprocess": "make one row a person",
        "train": "train the model where that is due",
        "score": "give every person a profile",
        "aggregate": "estimate cohorts, with disclosure control",
        "report": "write the night's report",
        "publish": "make the night visible, all at once",
    }
    return words[stage]


def run_stages(arguments: argparse.Namespace) -> int:
    lake = Lake(arguments.lake)
    if getattr(arguments, "check", False):
        return _check_training(lake, arguments.run_date, read_codebook(arguments.codebook)[0])
    with note_attempt(lake, arguments.run_date, arguments.stages[0]) as note:
        book, digest = read_codebook(arguments.codebook)
        with lake.hold():
            for stage in arguments.stages:
                note.begin(stage)
                run_stage(stage, lake, book, digest, arguments)
    return DONE


def run_stage(stage: str, lake: Lake, book: Codebook, digest: str, arguments: argparse.Namespace) -> None:
    """Runs one stage of the date's night and writes its record. A broken contract leaves no night behind."""
    run: Callable[[Job], StageRecord] = import_module(f"jobs.{stage}").run
    night = _find_night(stage, lake, arguments.run_date, digest)
    if night is None:  # published, and nothing newer is in the making: only what follows from the manifests is remade
        refresh(Job(lake, Night(lake, arguments.run_date, lake.last_token()), book, digest))
        return
    job = Job(
        lake,
        night,
        book,
        digest,
        arguments.extract,
        force_retrain=arguments.force_retrain,
        keep_model=getattr(arguments, "keep_model", False),
        reason=getattr(arguments, "reason", None),
        rescore=getattr(arguments, "rescore", False),
    )
    # Whatever is logged on the way carries them, too.
    structlog.contextvars.bind_contextvars(stage=stage, run_date=str(night.run_date), token=night.token)
    log = structlog.get_logger().bind(stage=stage, run_date=str(night.run_date), token=night.token)
    log.info("stage started")
    start = time.monotonic()
    watch: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if getattr(arguments, "profile", False):
        folder = lake.restricted / "profiling" / f"run_date={night.run_date.isoformat()}" / f"{night.token:08d}"
        watch = profile_stage(folder, stage)
    try:
        with watch, watch_progress(log), tell_lineage(job, stage) as outcome:
            made = outcome.record = run(job)
        record = replace(made, seconds=round(time.monotonic() - start, 3))
        if stage == "validate":
            lake.keep_codebook(find_codebook(arguments.codebook), digest)
        if night.folder.exists():  # gone once the night is published
            night.write(record)
    except Exception as error:
        log.error("stage failed", error=type(error).__name__)
        if stage == "validate":
            remove_night(night)
            # The error that is being told matters more than what a full or closed disk does not let go.
            with contextlib.suppress(OSError):
                remove_unnamed(lake, night.run_date, night.token)
        raise
    log.info("stage done", seconds=record.seconds, **record.counts)


def _find_night(stage: str, lake: Lake, run_date: date, digest: str) -> Night | None:
    """`validate` opens a night; the other stages go on with it, or take the published night up again."""
    if stage == "validate":
        # Whatever becomes of this extract, an older one that was never published is not taken up again.
        for old in lake.open_nights():
            if old.run_date == run_date:
                remove_night(old)
        return lake.open_night(run_date)
    manifest = lake.published(run_date)
    newest = manifest["token"] if manifest else 0
    # A night that is published and still open was stopped before `publish` had tidied up.
    if manifest is None or any(n.run_date == run_date and n.token > newest for n in lake.open_nights()):
        night = lake.current_night(run_date)
        validated = night.read("validate")
        _check_codebook(validated.details["codebook"], run_date, digest)
        check_withdrawn(lake, validated, run_date)
        return night
    _check_codebook(manifest["codebook"], run_date, digest)
    if stage == "publish":
        return None
    check_kept(manifest)
    records = [StageRecord.from_json(record) for record in manifest["stages"].values()]
    check_withdrawn(lake, StageRecord.from_json(manifest["stages"]["validate"]), run_date)
    return lake.open_night(run_date, records)


def _check_codebook(validated: Mapping[str, Any], run_date: date, digest: str) -> None:
    if validated["sha256"] != digest:
        raise UsageError(
            f"the night of {run_date} was validated by another codebook ({validated['name']} version "
            f"{validated['version']}): give that one (restricted/codebooks/{validated['sha256']}.yaml), or run "
            "`mindcensus validate` again"
        )


def _check_training(lake: Lake, run_date: date, book: Codebook) -> int:
    from jobs.train import check_need

    print(check_need(lake, run_date, book))
    return DONE


def run_explain(arguments: argparse.Namespace) -> int:
    from jobs.explain import explain_night, explain_person, read_published

    book, digest = read_codebook(arguments.codebook)
    lake, run_date = Lake(arguments.lake), arguments.run_date
    manifest = read_published(lake, run_date)
    _check_codebook(manifest["codebook"], run_date, digest)
    if arguments.person_id is not None:
        print(explain_person(lake, manifest, book, arguments.person_id, arguments.reason))
        return DONE
    with lake.hold():
        # Another run may have published the date again until now.
        manifest = read_published(lake, run_date)
        _check_codebook(manifest["codebook"], run_date, digest)
        rows = explain_night(lake, manifest, book)
    structlog.get_logger().info("explained", run_date=str(run_date), token=manifest["token"], explanations=rows)
    return DONE


def run_synthesize(arguments: argparse.Namespace) -> int:
    from jobs.explain import read_published
    from jobs.synthesize import synthesize

    book, digest = read_codebook(arguments.codebook)
    lake = Lake(arguments.lake)
    manifest = read_published(lake, arguments.run_date)
    _check_codebook(manifest["codebook"], arguments.run_date, digest)
    print(synthesize(lake, manifest, book, arguments.people, arguments.seed, arguments.out))
    return DONE


def run_demo(arguments: argparse.Namespace) -> int:
    from jobs.demo import write_demo
    from jobs.spark import spark_session

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.out.parent, prefix=".demo-") as folder:
        scratch = Lake(Path(folder))
        scratch.prepare()
        with spark_session(scratch, "demo") as spark:
            counts = write_demo(spark, arguments.out, arguments.people, arguments.seed, run_date=arguments.run_date)
    structlog.get_logger().info("demo written", folder=str(arguments.out), **counts)
    return DONE


def entry() -> None:
    sys.exit(main())


if __name__ == "__main__":
    entry()
