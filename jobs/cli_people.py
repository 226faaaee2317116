"""The subcommands of `mindcensus` about single people: their rights, their pseudonyms, and who has looked at them."""

import argparse
import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

import structlog

from expectations.codebook import read_codebook
from jobs.errors import DONE, UsageError
from jobs.lake import Lake, check_kept

IDS = "a file with an id a line; none = standard input, as no list of processes may show an id"


def add_people_commands(commands: Any, lake: argparse.ArgumentParser) -> None:
    """Adds the subcommands; `lake` is the parser of `--lake`."""
    why = argparse.ArgumentParser(add_help=False, parents=[lake])
    why.add_argument("--reason", metavar="TEXT", help="why: for the access log")
    audit = commands.add_parser("audit-log", parents=[lake], help="check the log of who has read people's data")
    audit.add_argument("what", choices=["verify"], help="read the whole chain, and say where it breaks")
    audit.set_defaults(run=run_audit_log)
    withdraw = commands.add_parser("withdraw", parents=[why], help="keep people out of every table from now on")
    withdraw.add_argument("--list", type=Path, metavar="FILE", help=IDS)
    withdraw.add_argument("--erase", action="store_true", help="remove them from past nights and their models, too")
    withdraw.set_defaults(run=run_withdraw)
    export = commands.add_parser("export-person", parents=[why], help="print all that is held about one person")
    export.add_argument("--id-file", type=Path, metavar="FILE", help=IDS)
    export.set_defaults(run=run_export)
    person = commands.add_parser("person", parents=[why], help="write a page about one person's own answers, for care")
    whom = person.add_mutually_exclusive_group()
    whom.add_argument("person_id", nargs="?", metavar="PSEUDONYM", help="a `person_id` of the profiles; none = an id")
    whom.add_argument("--id-file", type=Path, metavar="FILE", help=IDS)
    whom.add_argument("--everybody", action="store_true", help="pages about everybody, for the clinician on duty")
    person.add_argument("--care", type=Path, metavar="FILE", help="help lines, reviewed advice, who answers for it")
    person.add_argument("--lang", choices=["en", "zh"], default="en", help="the page's language")
    person.set_defaults(run=run_person)
    rotate = commands.add_parser("rotate-key", parents=[why], help="give everybody a pseudonym under a new key")
    rotate.add_argument("--to", type=Path, metavar="FILE", help="where the new key file is made; none = the lake's own")
    rotate.set_defaults(run=run_rotate)
    extract = commands.add_parser("research-extract", parents=[why], help="write people for researchers, coarsened")
    extract.add_argument("--run-date", type=date.fromisoformat, required=True, metavar="YYYY-MM-DD")
    extract.add_argument("--limit", type=float, default=0.05, metavar="SHARE", help="of people alone with their row")
    extract.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    extract.set_defaults(run=run_research_extract)


def run_audit_log(arguments: argparse.Namespace) -> int:
    from jobs.audit import verify_log

    head = verify_log(Lake(arguments.lake))
    print(f"{head.entries:,} entries, none changed or missing; the last one's sha256 is {head.last}: keep it elsewhere")
    return DONE


def run_withdraw(arguments: argparse.Namespace) -> int:
    from jobs.audit import check_reason
    from jobs.withdraw import withdraw
    from jobs.withdrawn import read_ids

    lake, reason = _open_lake(arguments), check_reason(arguments.reason)
    with lake.hold():
        done = withdraw(lake, read_ids(lake, arguments.list), reason, erase=arguments.erase)
    told = f"{done.people:,} people are blocked; of {done.unknown:,} of them the lake has no row"
    if arguments.erase:
        told += f"; {done.rows:,} rows in {done.nights:,} nights are erased, {len(done.models):,} models are retired"
    print(told)
    if done.notice:
        print(f"send {lake.root / done.notice} to the deliverer, with the ids of the request")
    return DONE


def run_export(arguments: argparse.Namespace) -> int:
    from jobs.audit import check_reason
    from jobs.export_person import export_person
    from jobs.withdrawn import read_person

    lake, reason = _open_lake(arguments), check_reason(arguments.reason)
    json.dump(export_person(lake, read_person(lake, arguments.id_file), reason), sys.stdout, indent=1, allow_nan=False)
    print()
    return DONE


def run_person(arguments: argparse.Namespace) -> int:
    from jobs.analysing import open_desk
    from jobs.audit import check_pseudonym, check_reason
    from jobs.person import analyse_everybody, analyse_person
    from jobs.withdrawn import read_person

    lake, reason, given = _open_lake(arguments), check_reason(arguments.reason), arguments.person_id
    if given:
        check_pseudonym(given)
    desk = open_desk(lake, arguments.care)
    if arguments.everybody:
        file = analyse_everybody(desk, reason, arguments.lang)
    else:
        person = given or read_person(lake, arguments.id_file)[-1]
        file = analyse_person(desk, person, reason, arguments.lang)
    print(file)
    return DONE


def run_rotate(arguments: argparse.Namespace) -> int:
    from jobs.rotate_key import rotate_key

    lake = _open_lake(arguments)
    with lake.hold():
        file = rotate_key(lake, arguments.to, arguments.reason)
    structlog.get_logger().info("key rotated", file=str(file))
    print(f"the lake's key is in {file}: keep a copy of it elsewhere", end="")
    print(", and name it by MINDCENSUS_KEY_FILE, or put its content into MINDCENSUS_KEY" if arguments.to else "")
    return DONE


def run_research_extract(arguments: argparse.Namespace) -> int:
    from jobs.audit import check_reason, log_access
    from jobs.research_extract import write_extract

    lake, reason = _open_lake(arguments), check_reason(arguments.reason)
    manifest = lake.published(arguments.run_date)
    if manifest is None:
        raise UsageError(f"no night of {arguments.run_date} is published: name one that is")
    check_kept(manifest)
    book, _ = read_codebook(str(lake.restricted / "codebooks" / f"{manifest['codebook']['sha256']}.yaml"))
    log_access(lake, "research-extract", [None], reason)
    made = write_extract(lake, manifest, book, arguments.limit, arguments.out)
    print(f"{len(made.people):,} people, {made.alone:.2%} of them alone with their row: {arguments.out}")
    return DONE


def _open_lake(arguments: argparse.Namespace) -> Lake:
    lake = Lake(arguments.lake)
    if not lake.restricted.is_dir():
        raise UsageError(f"there is no lake {lake.root}: name its folder by --lake")
    return lake
