"""Early warning of a population: the groups whose traits have risen beyond chance since the last comparable release.

Made of public rows alone, so that it tells nothing that the tables do not. Every group's change is tested, and the
share of false alarms among the groups named is bounded (Benjamini and Hochberg 1995): groups overlap, and a miss is
the worse error of a screening.
"""

from collections.abc import Sequence
from typing import Any

from scipy.stats import t

from jobs.findings import Cell, Findings
from jobs.report_outcomes import tell_change
from model.multiplicity import SIGNIFICANCE, adjust_false_discoveries


def find_risen(findings: Sequence[Findings]) -> tuple[list[tuple[Findings, Cell]], int]:
    """The cells whose trait has risen, the surest first, and how many changes of traits were tested.

    A trait is higher where there is more distress. Tests are one-sided, with the change's SE and degrees of freedom.
    """
    tested = [
        (one, cell, float(t.sf(row["estimate"] / row["se"], row["df"])))
        for one in findings
        if one.outcome.latent
        for cell in one.cells()
        if (row := cell.also("change")) and row["se"] and row["df"]
    ]
    adjusted = adjust_false_discoveries([p for _, _, p in tested])
    order = sorted(range(len(tested)), key=lambda place: (adjusted[place], tested[place][2], place))
    return [tested[place][:2] for place in order if adjusted[place] <= SIGNIFICANCE], len(tested)


def warn_early(findings: Sequence[Findings]) -> dict[str, Any] | None:
    """What the page says; None where no change of a trait is told."""
    risen, tested = find_risen(findings)
    if not tested:
        return None
    lines = [
        one.words.say("early_line", title=one.title, group=one.label(cell), change=tell_change(one, cell))
        for one, cell in risen
    ]
    return {"lines": lines, "tested": tested}
