"""Disclosure control of all kinds of rows: means and proportions first, and then what follows from them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from expectations.outcomes import Outcome
from jobs.attack import protect_release
from jobs.bounding import find_bounding, mark_bounding
from jobs.disclosure import TRAIT_SUFFIX, Release, hide_figure
from jobs.disclosure_profiles import OPENSAFELY, Profile
from jobs.estimates import sort_rows
from jobs.followers import (
    follow_change,
    follow_quantile,
    follow_ratio,
    follow_standardised,
    follow_total,
    hide_people,
)
from jobs.standardised import Groups
from jobs.standardised_disclosure import find_untold
from jobs.survey import CellKey, CohortRow


def protect_kinds(
    rows: Sequence[CohortRow],
    outcomes: Sequence[Outcome],
    before: Mapping[CellKey, float],
    profile: Profile = OPENSAFELY,
    earlier: Sequence[Release] = (),
    groups: Groups | None = None,
) -> list[CohortRow]:
    """The public form of every row, in their order, with the cells that have been emptied since in their places.

    `before` has the means and proportions of the release that changes are told from; `earlier` the releases that means
    and proportions are compared with; `groups` the cells that standardised figures are made of.
    """
    named = {outcome.name: outcome for outcome in outcomes}
    base = [row for row in rows if row.figures.kind in ("mean", "proportion")]
    exact = {row.place: row for row in base}
    shown = {row.place: row for row in protect_release(base, profile, earlier)}
    if bounding := find_bounding(base, list(shown.values()), outcomes, profile):
        again = [row for row in base if row.outcome in {outcome for *_, outcome in bounding}]
        shown |= {row.place: row for row in protect_release(mark_bounding(again, bounding), profile, earlier)}
    cells = exact | {row.place: row for row in groups.unpublished} if groups else exact
    untold = find_untold(rows, cells, shown, groups, profile, earlier) if groups else frozenset()
    public = []
    for row in rows:
        key = row.place
        if row.outcome.endswith(TRAIT_SUFFIX):
            shown[key] = replace(shown[key], figures=hide_people(shown[key].figures, profile))
        if row.figures.kind in ("mean", "proportion"):
            public.append(shown[key])
        elif row.figures.kind == "total":
            whole = exact.get(((), (), row.outcome), exact[key])
            public.append(follow_total(row, exact[key].figures, shown[key], whole.figures.n or 0, profile))
        elif row.figures.kind == "standardised":
            assert groups
            made_of = [cells[one] for one in groups.list_keys(row) if one in cells]
            shares = list(groups.standard.normalised.values())
            public.append(follow_standardised(row, shown[key], made_of, shares, key in untold, profile))
        elif row.figures.kind == "change":
            public.append(follow_change(row, exact[key].figures, shown[key], before.get(key), profile))
        elif row.figures.kind == "quantile":
            quantile = named[row.outcome]
            beside = [o.name for o in outcomes if o.kind == "proportion" and o.source == quantile.source]
            cuts = [shown[(*key[:2], name)] for name in beside]
            mean = shown[(*key[:2], quantile.source)]
            public.append(follow_quantile(row, quantile.level or 0.0, mean, cuts, profile))
        else:
            public.append(follow_ratio(row, named[row.outcome], exact, shown, profile))
    # Cells that few people have emptied since an earlier release stand there, too, as if they were not empty.
    emptied = [row for key, row in shown.items() if key not in exact]
    return sort_rows([*public, *emptied, *_carry_followers(emptied, rows, named)]) if emptied else public


def _carry_followers(
    emptied: Sequence[CohortRow], rows: Sequence[CohortRow], named: Mapping[str, Outcome]
) -> list[CohortRow]:
    """What other cells of the breakdown have beside their means and proportions, of emptied cells.

    Without it the fewer rows of an emptied cell would tell that it is empty.
    """
    beside: dict[tuple[tuple[str, ...], str], dict[tuple[str, str], CohortRow]] = {}
    for row in rows:
        if row.figures.kind not in ("mean", "proportion"):
            for base in named[row.outcome].base_names():
                beside.setdefault((row.breakdown, base), {}).setdefault((row.outcome, row.figures.kind), row)
    carried = {}
    for cell in emptied:
        for (outcome, kind), like in beside.get((cell.breakdown, cell.outcome), {}).items():
            bare = replace(hide_figure(like.figures, cell.figures.reason), n=None, n_weighted=None, df=None)
            carried[cell.cell, outcome, kind] = replace(like, cell=cell.cell, figures=bare, disclosure=cell.disclosure)
    return list(carried.values())
