"""The attack by totals, ratios, changes and quantiles: it finds what each gives away without its protection."""

from dataclasses import replace

import pytest

from benchmarks.disclosure import (
    MEAN,
    OUTCOMES,
    RATIO,
    SHARE,
    TENTH,
    attack_nights,
    estimate_night,
    find_moves,
    name_night,
    protect_nights,
    simulate_nights,
)
from jobs.algebra import EXACT, OTHER_BOUNDS, TOO_FINE
from jobs.attack import NARROW_CASES, find_exposed
from jobs.disclosure import TOO_FEW_CASES, Release, hide_figure
from jobs.disclosure_profiles import OPENSAFELY, PROFILES
from jobs.followers import SHARE_WITHHELD, TOO_FEW_BEYOND, count_beyond
from jobs.followers_attack import APART, BESIDE, find_told
from jobs.following import protect_kinds
from jobs.survey import CohortRow, Estimate


@pytest.fixture(scope="module")
def nights():
    """The exact rows of two nights, the second with changes, and what moved between them."""
    people = list(simulate_nights(2, 700, seed=5))
    return [estimate_night(people[0]), estimate_night(people[1], people[0], name_night(0))], find_moves(*people)


@pytest.fixture(scope="module")
def public(nights):
    tables, moves = nights
    return protect_nights(tables, {(0, 1): moves}, OPENSAFELY)


def attack(rows, nights, public):
    earlier = [Release(name_night(0).isoformat(), public[0], nights[1])]
    return {(row.outcome, how) for row, how in find_told(Release("now", rows), earlier, OUTCOMES, OPENSAFELY)}


def test_the_protected_nights_expose_nothing(nights, public):
    assert attack_nights(public, {(0, 1): nights[1]}, OPENSAFELY) == []
    shown = {(row.figures.kind) for row in public[1] if row.figures.estimate is not None}
    assert shown == {"mean", "proportion", "total", "ratio", "quantile", "change"}


@pytest.mark.parametrize(
    ("outcome", "kind", "taken", "how"),
    [
        (SHARE, "total", ["estimate"], EXACT),
        (SHARE, "total", ["se"], EXACT),
        (SHARE, "total", ["se"], TOO_FINE),
        (SHARE, "total", ["ci_low", "ci_high"], OTHER_BOUNDS),
        (RATIO, "ratio", ["estimate"], EXACT),
        (RATIO, "ratio", ["ci_low", "ci_high"], OTHER_BOUNDS),
        (SHARE, "change", ["estimate"], APART),
        (MEAN, "change", ["estimate"], TOO_FINE),
    ],
    ids=str,
)
def test_an_exact_figure_gives_itself_away(nights, public, outcome, kind, taken, how):
    exact = {(row.place, row.figures.kind): row.figures for row in nights[0][1]}

    def restore(row: CohortRow) -> CohortRow:
        own = exact[row.place, kind]
        return replace(row, figures=replace(row.figures, **{name: getattr(own, name) for name in taken}))

    rows = [
        restore(r) if (r.outcome, r.figures.kind) == (outcome.name, kind) and r.figures.estimate is not None else r
        for r in public[1]
    ]
    assert (outcome.name, how) in attack(rows, nights, public)


@pytest.mark.parametrize("kind", ["total", "change", "ratio"])
def test_a_figure_beside_a_withheld_one_gives_it_away(nights, public, kind):
    by_kind = {(row.place, row.figures.kind): row for row in public[1]}
    place = next(
        row.place[:2] for row in public[1] if row.figures.kind == kind and row.figures.estimate is not None and row.cell
    )
    base = by_kind[(*place, SHARE.name), "proportion"]
    hidden = replace(base, figures=hide_figure(base.figures, TOO_FEW_CASES), disclosure="suppressed")
    rows = [hidden if row is base else row for row in public[1]]
    assert (SHARE.name, BESIDE) in attack(rows, nights, public)


# For 60 people with few cases each, scores near an end of their scale and a quantile below the cut say how few.
CELLS = {"a": (400, 90), "b": (300, 80), "c": (60, 2), "d": (60, 20)}


def tabulate(mean: dict[str, float], tenth: dict[str, float], groups=CELLS) -> list[CohortRow]:
    """Everybody and the groups, of equal weights."""
    cells = {"": tuple(map(sum, zip(*groups.values(), strict=True))), **groups}
    rows = []
    for level, (n, cases) in cells.items():
        place = (("group",), (level,)) if level else ((), ())
        common = (n, cases, n * 100.0)
        p = cases / n
        share = Estimate("proportion", *common, p, (p * (1 - p) / n) ** 0.5, n - 1, 0, 1, "t", 1.0, "present", None)
        score = replace(share, kind="mean", n_cases=None, estimate=mean.get(level, 5.0), se=0.1)
        quantile = replace(score, kind="quantile", estimate=tenth.get(level, 12.0), se=1.0, ci_low=9.0, ci_high=14.0)
        if level in tenth:
            quantile = replace(quantile, ci_low=tenth[level] - 1, ci_high=tenth[level])
        rows += [CohortRow(*place, one.name, f) for one, f in ((SHARE, share), (MEAN, score), (TENTH, quantile))]
    return rows


def attack_one(public):
    return {(one.cell, one.how) for one in find_exposed(Release("now", public), [], OPENSAFELY, OUTCOMES)}


@pytest.mark.parametrize(("mean", "tenth"), [({"c": 0.5}, {}), ({}, {"c": 8.0})], ids=["mean", "quantile"])
def test_what_bounds_a_withheld_share_goes(mean, tenth):
    rows = tabulate(mean, tenth)
    public = protect_kinds(rows, OUTCOMES, {})
    assert attack_one(public) == set()
    bare = protect_kinds(tabulate({}, {}), OUTCOMES, {})  # nothing near an end: the mean is shown
    assert [row.disclosure for row in bare if row.cell == ("c",) and row.outcome == MEAN.name] == ["shown"]
    exact = {(row.place, row.figures.kind): row for row in rows}
    opened = [
        replace(row, figures=replace(exact[row.place, row.figures.kind].figures, n_weighted=6000.0, deff=None))
        if row.cell == ("c",) and row.outcome in ((MEAN if mean else TENTH).name,)
        else row
        for row in public
    ]
    assert (("c",), NARROW_CASES) in attack_one(opened)


def test_a_quantile_goes_with_a_share_of_its_scale():
    def publish(cases: dict[str, tuple[int, int]]) -> dict[tuple[str, ...], str | None]:
        with_cells = protect_kinds(tabulate({}, {}, cases), OUTCOMES, {})
        return {row.cell: row.figures.reason for row in with_cells if row.outcome == TENTH.name}

    shown = dict.fromkeys([(), ("a",), ("b",), ("c",)])
    assert publish({"a": (400, 90), "b": (300, 80), "c": (290, 70)}) == shown
    # The share of `b` goes because it would give that of `c` away.
    hidden = {("b",): SHARE_WITHHELD, ("c",): SHARE_WITHHELD}
    assert publish({"a": (400, 90), "b": (300, 60), "c": (290, 2)}) == shown | hidden
    assert publish({"a": (400, 90), "b": (300, 80), "c": (60, 20)}) == shown | {("c",): TOO_FEW_BEYOND}


@pytest.mark.parametrize(("n", "enough"), [(100, False), (200, True)])
def test_people_beyond_the_interval_count(n, enough):
    """Of 100 people 10 lie beyond a tenth, but only 4 beyond its interval."""
    assert (count_beyond(0.9, n, n - 1) > PROFILES["opensafely"].redact_up_to) == enough
