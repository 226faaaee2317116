"""The subcommands of `mindcensus` that ask a lake and keep it: its tables, its releases, its state, its age."""

import argparse
import tempfile
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import structlog

from expectations.codebook import read_codebook
from jobs.errors import DONE, StageError, UsageError
from jobs.lake import Lake, is_public


def add_lake_commands(commands: Any, lake: argparse.ArgumentParser) -> None:
    """Adds the subcommands; `lake` is the parser of `--lake`."""
    dated = argparse.ArgumentParser(add_help=False, parents=[lake])
    dated.add_argument("--run-date", type=read_date, required=True, metavar="YYYY-MM-DD", help="the night's date")
    audit = commands.add_parser("audit-release", parents=[dated], help="attack the public tables of a published night")
    audit.set_defaults(run=run_audit)
    signing = commands.add_parser("sign-off", parents=[dated], help="record who has looked at a night's release")
    signing.add_argument("--by", required=True, metavar="NAME", help="who has looked at it")
    signing.set_defaults(run=run_sign_off)
    query = commands.add_parser("query", parents=[lake], help="ask the published tables in SQL; prints a table")
    query.add_argument("sql", metavar="SQL", help='like "FROM cohorts_latest", or "SHOW TABLES"')
    query.add_argument("--restricted", action="store_true", help="ask the people's tables: for the lake's owner")
    query.add_argument("--reason", metavar="TEXT", help="why tables of people are asked: for the access log")
    query.add_argument("--csv", action="store_true", help="print comma-separated values, all rows")
    query.set_defaults(run=run_query)
    status = commands.add_parser("status", parents=[lake], help="how the last nights went, and what is at work")
    status.add_argument("--expect", type=read_date, metavar="YYYY-MM-DD", help="late where it is not published")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(run=run_status)
    retain = commands.add_parser("retain", parents=[dated], help="remove people's tables of old nights")
    retain.add_argument("--keep-days", type=int, required=True, metavar="N", help="for how long they are kept; from 31")
    retain.set_defaults(run=run_retain)
    drill = commands.add_parser("drill", parents=[lake], help="restore a back-up to a scratch folder, and check it")
    drill.add_argument("--backup", type=Path, required=True, metavar="DIR", help="the back-up of the lake's folder")
    drill.set_defaults(run=run_drill)
    told = "attack models trained like a published night's, and write into its card what they give away of people"
    membership = commands.add_parser("measure-membership", parents=[dated], help=told)
    membership.set_defaults(run=run_membership)
    doctor = commands.add_parser("doctor", help="check that this machine has what a night needs")
    doctor.add_argument("--lake", type=Path, metavar="DIR")
    doctor.set_defaults(run=run_doctor)


def read_date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a date like 2026-01-31") from None


def run_query(arguments: argparse.Namespace) -> int:
    from jobs.query import log_question, print_answer

    lake = Lake(arguments.lake)
    if arguments.restricted:
        log_question(lake, arguments.sql, arguments.reason)
    print_answer(lake, arguments.sql, arguments.restricted, arguments.csv)
    return DONE


def run_audit(arguments: argparse.Namespace) -> int:
    from jobs.releases import audit_release, check_exposed

    lake = Lake(arguments.lake)
    manifest = lake.published(arguments.run_date)
    if manifest is None:
        raise StageError(f"no night of {arguments.run_date} is published: there is nothing to audit")
    if not is_public(manifest):
        raise StageError(f"the night of {arguments.run_date} stayed internal: there is nothing to audit")
    if privacy := manifest["release"].get("privacy"):
        print(
            f"{arguments.run_date}: differentially private, epsilon {privacy['epsilon']}; no count is there to attack"
        )
        return DONE
    book, _ = read_codebook(str(lake.restricted / "codebooks" / f"{manifest['codebook']['sha256']}.yaml"))
    with tempfile.TemporaryDirectory(dir=lake.staging) as scratch:
        check_exposed(audit_release(lake, manifest, book, Path(scratch)))
    print(f"{arguments.run_date}: the public tables give no protected figure away")
    return DONE


def run_sign_off(arguments: argparse.Namespace) -> int:
    from jobs.releases import sign_off

    lake = Lake(arguments.lake)
    with lake.hold():
        digest = sign_off(lake.current_night(arguments.run_date), arguments.by)
    print(f"{arguments.run_date}: release {digest[:16]} is signed off by {arguments.by}")
    return DONE


def run_status(arguments: argparse.Namespace) -> int:
    from jobs.status import print_status, read_status

    return print_status(read_status(Lake(arguments.lake)), arguments.expect, arguments.json)


def run_retain(arguments: argparse.Namespace) -> int:
    from expectations.purpose import FEWEST_DAYS
    from jobs.retain import retain

    if arguments.keep_days < FEWEST_DAYS:
        raise UsageError(f"--keep-days {arguments.keep_days}: the nights that follow need those of {FEWEST_DAYS} days")
    lake = Lake(arguments.lake)
    with lake.hold():
        removed = retain(lake, arguments.run_date, arguments.keep_days)
    log = structlog.get_logger()
    log.info("retained", run_date=str(arguments.run_date), **asdict(removed))
    if removed.overdue:
        log.warning(
            "people's tables are older than their codebook allows",
            nights=removed.overdue,
            why="later nights are compared with them, so that no difference of two releases tells of a person",
            remedy="where the survey has ended, archive `public/` and remove the lake",
        )
    return DONE


def run_drill(arguments: argparse.Namespace) -> int:
    from jobs.drill import run_drill

    restored = run_drill(arguments.backup, Lake(arguments.lake))
    structlog.get_logger().info("restored", backup=str(arguments.backup), **asdict(restored))
    return DONE


def run_membership(arguments: argparse.Namespace) -> int:
    from jobs.explain import read_published
    from jobs.membership import measure_membership
    from jobs.progress import watch_progress

    lake = Lake(arguments.lake)
    log = structlog.get_logger().bind(run_date=str(arguments.run_date))
    with watch_progress(log):
        found = measure_membership(lake, read_published(lake, arguments.run_date))
    log.info("membership measured", **asdict(found))
    return DONE


def run_doctor(arguments: argparse.Namespace) -> int:
    from jobs.doctor import check_machine

    findings = check_machine(arguments.lake)
    for finding in findings:
        print(f"{'ok     ' if finding.ok else 'MISSING'} {finding.name}: {finding.sentence}")
    return DONE if all(finding.ok for finding in findings) else 1
