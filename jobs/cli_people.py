"""The subcommands of `mindcensus` about single people: their rights, and who has looked at them."""

import argparse
from typing import Any

from jobs.errors import DONE
from jobs.lake import Lake


def add_people_commands(commands: Any, lake: argparse.ArgumentParser) -> None:
    """Adds the subcommands; `lake` is the parser of `--lake`."""
    audit = commands.add_parser("audit-log", parents=[lake], help="check the log of who has read people's data")
    audit.add_argument("what", choices=["verify"], help="read the whole chain, and say where it breaks")
    audit.set_defaults(run=run_audit_log)


def run_audit_log(arguments: argparse.Namespace) -> int:
    from jobs.audit import verify_log

    head = verify_log(Lake(arguments.lake))
    print(f"{head.entries:,} entries, none changed or missing; the last one's sha256 is {head.last}: keep it elsewhere")
    return DONE
