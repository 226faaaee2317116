"""One label for all that disclosure control hides, so that readers do not learn which figures are the small ones.

Too few degrees of freedom are told as such: they are public, and every figure that has as few is withheld.
What was hidden for its own sake, and what for a neighbour's, is kept in the restricted table `suppressions`: the audit
takes an outsider to know it, and later nights keep hidden what must stay so.
"""

from collections.abc import Sequence
from dataclasses import replace

from jobs.disclosure import TOO_FEW_DF, key_of
from jobs.survey import CohortRow

WITHHELD = "withheld by disclosure control"


def list_hidden(rows: Sequence[CohortRow]) -> list[CohortRow]:
    """The rows that disclosure control hides, or whose count it does."""
    return [row for row in rows if row.disclosure != "shown"]


def merge_labels(rows: Sequence[CohortRow]) -> list[CohortRow]:
    """The rows as readers get them."""
    return [
        row
        if row.disclosure == "shown"
        else replace(row, disclosure="suppressed", figures=replace(row.figures, reason=_word_reason(row)))
        for row in rows
    ]


def _word_reason(row: CohortRow) -> str:
    return TOO_FEW_DF if row.figures.reason == TOO_FEW_DF and row.figures.df is not None else WITHHELD


def restore_labels(rows: Sequence[CohortRow], hidden: Sequence[CohortRow]) -> list[CohortRow]:
    """Published rows with the labels and reasons of `hidden`."""
    told = {key_of(row): row for row in hidden}
    restored = []
    for row in rows:
        own = told.get(key_of(row))
        figures = replace(row.figures, reason=own.figures.reason) if own else row.figures
        restored.append(replace(row, figures=figures, disclosure=own.disclosure if own else row.disclosure))
    return restored
