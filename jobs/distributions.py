"""How traits are distributed in everybody and in each cohort: shares of people by bins, from plausible values."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jobs.plausible_sums import EDGES, Breakdown, PlausibleSums, has_bins, name_cell
from jobs.survey import CohortRow
from jobs.trait_estimates import MEAN

if TYPE_CHECKING:
    from model.conditioning import Conditioning

FEWEST_PEOPLE = 100  # of a cell whose shares are told
SHARE_DECIMALS = 2
TOO_FEW = f"withheld: fewer than {FEWEST_PEOPLE} people"


def describe_distributions(
    sums: PlausibleSums,
    conditioning: "Conditioning",
    breakdowns: Sequence[Breakdown],
    traits: Sequence[str],
    public: Sequence[CohortRow],
    exact: Sequence[CohortRow],
) -> list[dict[str, Any]]:
    """Rows of the public table, the cohorts of a breakdown under their own names.

    Whether a cell is told, and its count, follow from the `public` rows of the traits' means; where those do not tell
    the count, whether there are enough people is judged by the `exact` ones.
    """
    told = {row.place: row for row in public if row.figures.kind == "mean"}
    people = {row.place: row.figures.n for row in exact if row.figures.kind == "mean"}
    records = []
    for breakdown, found in zip(filter(has_bins, breakdowns), sums.bins, strict=True):
        for cell, row in zip(found.keys, found.rows, strict=True):
            levels = name_cell(conditioning, breakdown, int(cell))
            for trait, counts in zip(traits, row.reshape(len(traits), -1), strict=True):
                place = (breakdown, levels, trait + MEAN)
                beside = told.get(place)
                if beside is None:
                    continue
                n, disclosure, reason = _judge(beside, people.get(place) or 0)
                shares = [round(float(share), SHARE_DECIMALS) for share in counts / counts.sum()]
                records += [
                    {
                        "breakdown": "*".join(breakdown) or "all",
                        **dict(zip(breakdown, levels, strict=True)),
                        "outcome": trait,
                        "bin_low": float(EDGES[number - 1]) if number else None,
                        "bin_high": float(EDGES[number]) if number < len(EDGES) else None,
                        "share": share if reason is None else None,
                        "n": n,
                        "disclosure": disclosure,
                        "reason": reason,
                    }
                    for number, share in enumerate(shares)
                ]
    return records


def _judge(row: CohortRow, people: int) -> tuple[int | None, str | None, str | None]:
    """The count that is shown, the disclosure, and why the shares are withheld, where they are."""
    if row.disclosure != "shown":
        return row.figures.n, row.disclosure, row.figures.reason or "withheld: its mean is"
    if (people if row.figures.n is None else row.figures.n) < FEWEST_PEOPLE:
        return row.figures.n, "suppressed", TOO_FEW
    return row.figures.n, "shown", None
