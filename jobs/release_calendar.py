"""The release calendar: which nights make a public release, and which stay internal.

Frequent releases of nearly the same people can be set against each other: a least interval and a least change between
two of them leave less to find.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from expectations.codebook_parts import Calendar
from jobs.catalog import find_files
from jobs.errors import StageError
from jobs.job import Job
from jobs.lake import StageRecord, check_kept, list_public
from jobs.movement import count_movers

CORRECTION = "it corrects a release that is public already"


@dataclass(frozen=True)
class Decision:
    """Whether a night is released, why (or why not), and the first date on which a next one can be."""

    public: bool
    why: str | None = None
    next_possible: date | None = None

    def to_json(self) -> dict[str, Any]:
        possible = self.next_possible.isoformat() if self.next_possible else None
        return {"public": self.public, "why": self.why, "next_possible": possible}

    @staticmethod
    def from_json(raw: Mapping[str, Any] | None) -> "Decision":
        """Of a night's record; nights of before the calendar were public."""
        if raw is None:
            return Decision(True)
        possible = raw["next_possible"]
        return Decision(raw["public"], raw["why"], date.fromisoformat(possible) if possible else None)


def decide_by_date(run_date: date, released: Sequence[date], calendar: Calendar) -> Decision:
    """By the dates of the public releases alone, later ones too, where an earlier date is run after them.

    A correction takes the place of a release that is public: it lets nobody compare more of them, and errors must not
    stand until the calendar allows a new one.
    """
    if run_date in released:
        return Decision(True, CORRECTION)
    least = timedelta(days=calendar.least_days)
    near = [one for one in released if abs(run_date - one) < least]
    if not near:
        return Decision(True)
    possible = max(run_date, min(near) + least)
    while beside := [one for one in released if abs(possible - one) < least]:
        possible = max(beside) + least
    why = f"fewer than {calendar.least_days} days lie between it and the public release of {near[-1]}"
    return Decision(False, why, possible)


def decide_release(job: Job) -> Decision:
    """Whether tonight is released, by date and by how many people moved since the last public release before it.

    Raises StageError where the profiles of that one are missing.
    """
    calendar, before = job.book.disclosure.calendar, find_released(job)
    if calendar is None:
        return Decision(True)
    decision = decide_by_date(job.run_date, [date.fromisoformat(m["run_date"]) for m in before], calendar)
    earlier = [m for m in before if m["run_date"] < job.run_date.isoformat()]
    if not decision.public or decision.why == CORRECTION or not earlier or not calendar.least_change:
        return decision
    check_kept(earlier[-1])
    if _count_movers(job, find_files(job.lake.root, earlier[-1], "profiles")) >= calendar.least_change:
        return decision
    # The number itself stays out of logs and manifests.
    why = (
        f"fewer than {calendar.least_change} people came, left or answered anew since the public release of "
        f"{earlier[-1]['run_date']}"
    )
    return Decision(False, why, job.run_date + timedelta(days=1))


def check_calendar(job: Job, aggregated: StageRecord) -> Decision:
    """What aggregate decided. Raises StageError where another night has been released since, too near to this one."""
    decision, calendar = Decision.from_json(aggregated.details.get("release")), job.book.disclosure.calendar
    if decision.public and calendar:
        released = [date.fromisoformat(manifest["run_date"]) for manifest in find_released(job)]
        if not decide_by_date(job.run_date, released, calendar).public:
            raise StageError(
                f"a release near {job.run_date} was published since its tables were made: run `mindcensus aggregate` "
                "and what follows it again"
            )
    return decision


def find_released(job: Job) -> list[dict[str, Any]]:
    """The manifests of this codebook's public releases, whatever its version, in the order of their dates."""
    return [m for m in list_public(job.lake.manifests()) if m["codebook"]["name"] == job.book.codebook]


def _count_movers(job: Job, then: Sequence[Path]) -> int:
    totals = [f"{scale.key}_total" for scale in job.book.scales]
    known = set(pq.read_schema(then[0]).names)
    scratch = job.night.scratch("calendar")
    return count_movers(job.night.paths("score", "profiles"), then, [t for t in totals if t in known], scratch)
