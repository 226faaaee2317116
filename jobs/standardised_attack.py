"""The attack by standardised figures: they weight a cell's groups anew, so they are one more equation for each cell."""

from collections.abc import Iterator, Sequence

from jobs.survey import CohortRow

EQUATIONS = 2  # the cell's crude figure and its standardised one: as many hidden groups follow from them


def find_regrouped(rows: Sequence[CohortRow]) -> Iterator[CohortRow]:
    """The withheld cells that follow from a standardised figure and the other groups of its cell.

    Which cohort is standardised by is no secret: the one whose breakdowns have no standardised figures.
    """
    base = [row for row in rows if row.figures.kind in ("mean", "proportion")]
    standardised = [row for row in rows if row.figures.kind == "standardised"]
    by = {name for row in base for name in row.breakdown} - {name for row in standardised for name in row.breakdown}
    for row in (row for row in standardised if row.figures.estimate is not None):
        cell = set(zip(row.breakdown, row.cell, strict=True))
        for cohort in sorted(by):
            groups = [
                one
                for one in base
                if one.outcome == row.outcome
                and set(one.breakdown) == {*row.breakdown, cohort}
                and cell <= set(zip(one.breakdown, one.cell, strict=True))
            ]
            hidden = [one for one in groups if one.disclosure != "shown"]
            if len(hidden) <= EQUATIONS:
                yield from hidden
