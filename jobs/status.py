"""`mindcensus status`: how the lake's nights go, as a table or as JSON, and an exit code for whoever watches.

Nothing is written, and no clock is looked at: whether a night is late is judged by the date that the caller expects.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.attempts import Attempt, read_attempts
from jobs.errors import DONE, DRIFTED, FAILED, LATE, UsageError
from jobs.lake import Lake
from jobs.lease import read_holder
from jobs.nights import DRIFT_WARNINGS, Making, Published, Shift, find_next_release, list_making, list_published

NIGHTS = 14  # that are shown
KILLED = "it was killed, or its machine went down: run it again"
STATES = {DONE: "well", LATE: "late", FAILED: "failed", DRIFTED: "drifted"}


@dataclass(frozen=True)
class Status:
    """The last nights; what is at work; and what has failed since anything ended well. Latest first."""

    lake: str
    holder: str | None
    nights: tuple[Published, ...]
    making: tuple[Making, ...]
    failed: tuple[Attempt, ...]
    next_release: date | None = None

    @property
    def last(self) -> Published | None:
        return self.nights[0] if self.nights else None

    def judge(self, expected: date | None) -> int:
        """DONE, or the worst that there is to say: FAILED, LATE or DRIFTED, in this order.

        A night that failed and is being tried again has not failed yet.
        """
        if self.failed and self.holder is None:
            return FAILED
        if expected and (self.last is None or self.last.run_date < expected.isoformat()):
            return LATE
        return DRIFTED if self.last and self.last.drifted else DONE

    def to_json(self, expected: date | None) -> dict[str, Any]:
        nights = [{**asdict(night), "release": night.release.to_json()} for night in self.nights]
        return {
            "lake": self.lake,
            "state": STATES[self.judge(expected)],
            "holder": self.holder,
            "next_release": self.next_release.isoformat() if self.next_release else None,
            "nights": nights,
            "making": [asdict(one) for one in self.making],
            "failed": [asdict(one) for one in self.failed],
        }


def read_status(lake: Lake) -> Status:
    """Raises UsageError where there is no lake, PermissionError where it is somebody else's."""
    if not lake.restricted.is_dir():
        raise UsageError(f"there is no lake {lake.root}: name its folder by --lake")
    # A folder that is shut would look like one without nights.
    next(lake.restricted.iterdir())
    nights = list_published(lake)
    held_by = read_holder(lake.restricted / "leases")
    holder = str(held_by) if held_by else None
    return Status(
        lake=str(lake.root),
        holder=holder,
        nights=tuple(nights[: -NIGHTS - 1 : -1]),
        making=tuple(list_making(lake)),
        failed=tuple(_list_failed(read_attempts(lake), holder)),
        next_release=find_next_release(lake, nights[-1]) if nights else None,
    )


def _list_failed(attempts: Sequence[Attempt], holder: str | None) -> list[Attempt]:
    """Latest first: all after the last one that ended well, without the one at work."""
    failed: list[Attempt] = []
    for attempt in reversed(attempts):
        if attempt.exit_code == DONE:
            break
        if attempt.ended_at is None and holder:
            holder = None  # older ones without an end were killed
        else:
            failed.append(attempt)
    return failed


def print_status(status: Status, expected: date | None, as_json: bool, console: Console | None = None) -> int:
    """Prints it, as wide as the terminal where it is a table; returns the exit code of its judgement."""
    code = status.judge(expected)
    if as_json:
        print(json.dumps(status.to_json(expected), indent=1))
        return code
    console = console or Console(highlight=False)
    console.print(Text(_word_state(status, code, expected)), style="bold")
    if status.nights:
        console.print(_tabulate(status.nights))
    facts = Table.grid(padding=(0, 2))
    for name, words in _list_facts(status):
        facts.add_row(Text(name), Text(words))
    console.print(facts)
    return code


def _word_state(status: Status, code: int, expected: date | None) -> str:
    last = f"the last night is {status.last.run_date}" if status.last else "no night is published"
    missing = f"; {expected} was expected" if code == LATE else ""
    return f"{STATES[code]}: {last}{missing} ({status.lake})"


def _tabulate(nights: Iterable[Published]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("night", no_wrap=True)
    for name in ("delivered", "profiles", "set aside", "drift", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("model of", no_wrap=True)
    table.add_column("release", no_wrap=True)
    for night in nights:
        rows = f"{night.delivered:,}", f"{night.rows['features']:,}", f"{night.rows['quarantined']:,}"
        seconds, model = f"{sum(night.seconds.values()):,.0f}", night.model_version[:10]
        table.add_row(night.run_date, *rows, _word_furthest(night), seconds, model, _word_release(night))
    return table


def _word_furthest(night: Published) -> str:
    shifts = [shift.psi for shift in (night.drift.answers, night.drift.profiles) if shift] if night.drift else []
    return f"{max(shifts):.2f}{'!' if night.drifted else ''}" if shifts else "!" if night.drifted else "-"


def _word_release(night: Published) -> str:
    return "public" if night.release.public else "internal"


def _list_facts(status: Status) -> list[tuple[str, str]]:
    """Of the last night, and of what is at work, in the order in which one asks."""
    facts = _describe_night(status.last, status) if status.last else []
    for making in status.making:
        done = ", ".join(making.done) or "no stage"
        facts.append(("in the making", f"{making.run_date}, since {_word_time(making.since)}: {done} done"))
    facts.append(("lake", f"held by {status.holder}" if status.holder else "free"))
    for attempt in status.failed:
        told = f"exit code {attempt.exit_code}: {attempt.sentence}" if attempt.ended_at else KILLED
        facts.append(("failed", f"{attempt.run_date}, {attempt.stage}, {_word_time(attempt.last_heard)}: {told}"))
    return facts


def _describe_night(night: Published, status: Status) -> list[tuple[str, str]]:
    rules = ", ".join(f"{rule} {rows:,}" for rule, rows in sorted(night.set_aside.items()))
    aside = [f"{rows:,} {fate}" for fate, rows in night.rows.items() if fate != "features"]
    facts = [
        ("published", _word_time(night.published_at)),
        ("seconds", ", ".join(f"{stage} {seconds:,.0f}" for stage, seconds in night.seconds.items())),
        ("set aside", f"{', '.join(aside)}; by rule: {rules or 'none'}"),
        ("drift", _describe_drift(night)),
        (
            "model",
            f"{night.model_version} of series {night.series}"
            + (f"; trained: {night.trained}" if night.trained else ""),
        ),
    ]
    if night.refused:
        facts.append(("refused", "; ".join(night.refused)))
    possible = f"; next possible on {status.next_release}" if status.next_release else ""
    why = f": {night.release.why}" if night.release.why else ""
    return [*facts, ("release", f"{_word_release(night)}{why}{possible}")]


def _describe_drift(night: Published) -> str:
    words = [
        f"the extract's {rule} moved past the codebook's limit" for rule in night.warnings if rule in DRIFT_WARNINGS
    ]
    if night.drift:
        words.append(f"answers {_word_shift(night.drift.answers)}, profiles {_word_shift(night.drift.profiles)}")
        words.append(f"limit {night.drift.limit}")
    return "; ".join(words) or "no model was in force to measure it by"


def _word_shift(shift: Shift | None) -> str:
    return f"{shift.psi:.3f} ({shift.key})" if shift else "none"


def _word_time(moment: str) -> str:
    return f"{moment[:10]} {moment[11:16]} UTC"
