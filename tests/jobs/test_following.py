"""What follows from means and proportions is published as they are: no more, and never beside a hidden figure."""

from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expectations.outcomes import Outcome
from jobs.disclosure import round_digits
from jobs.following import TOO_FEW_BEYOND, protect_kinds
from jobs.survey import CohortRow, Estimate

HIGH = Outcome("a_ge3", "proportion", "a_total", ">=", 3)
MEAN = Outcome("a_total", "mean", "a_total")
TENTH = Outcome("a_p10", "quantile", "a_total", level=0.1)
RATIO = Outcome("a_ge3_per_a_total", "ratio", "a_total", ">=", 3, over=MEAN)
OUTCOMES = [HIGH, MEAN, TENTH, RATIO]
SINCE = date(2026, 2, 1)
KINDS = {"a_ge3": ("proportion", "total", "change"), "a_total": ("mean", "change")}
KINDS |= {"a_p10": ("quantile",), "a_ge3_per_a_total": ("ratio",)}


def make_figures(kind: str, n: int, cases: int) -> Estimate:
    values = {"proportion": cases / n, "total": cases * 101.7, "change": 0.01234, "mean": 3.456, "quantile": 1.0}
    value = values.get(kind, cases / n / 3.456)
    numbers = (n * 101.7, value, 0.1 * value + 0.001, 12, value * 0.8, value * 1.2)
    n_cases = cases if kind in ("proportion", "total") else None
    return Estimate(kind, n, n_cases, *numbers, "t", 1.5, "present", None)


def make_rows(cells: dict[str, tuple[int, int]]) -> list[CohortRow]:
    return [
        CohortRow(("sex",), (level,), outcome, make_figures(kind, n, cases), since=SINCE if kind == "change" else None)
        for level, (n, cases) in cells.items()
        for outcome, kinds in KINDS.items()
        for kind in kinds
    ]


def protect(cells, before=()):
    rows = make_rows(cells)
    public = protect_kinds(rows, OUTCOMES, dict(before))
    assert [(row.place, row.figures.kind) for row in public] == [(r.place, r.figures.kind) for r in rows]
    return {(row.cell[0], row.outcome, row.figures.kind): row for row in public}


BEFORE = {(("sex",), ("men",), "a_ge3"): 0.2, (("sex",), ("men",), "a_total"): 3.4}


def test_public_figures_are_made_of_public_figures():
    rows = protect({"men": (1003, 203), "women": (998, 301)}, BEFORE)
    share, total = rows["men", "a_ge3", "proportion"].figures, rows["men", "a_ge3", "total"].figures
    assert total.estimate == round_digits(share.estimate * share.n_weighted, 3)
    assert (total.n, total.n_weighted, total.n_cases, total.deff) == (share.n, share.n_weighted, None, None)
    assert total.ci_low < total.estimate < total.ci_high
    change = rows["men", "a_ge3", "change"]
    assert change.figures.estimate == pytest.approx(share.estimate - 0.2, abs=1e-12)
    assert change.since == SINCE
    unknown = rows["women", "a_ge3", "change"].figures
    assert (unknown.estimate, unknown.reason) == (None, "the earlier release does not show the figure")


def test_a_quantile_with_few_people_beyond_it_is_withheld():
    rows = protect({"men": (69, 30), "women": (400, 100)})
    assert rows["men", "a_total", "mean"].disclosure == "shown"
    tenth = rows["men", "a_p10", "quantile"]
    assert (tenth.disclosure, tenth.figures.estimate, tenth.figures.reason) == ("suppressed", None, TOO_FEW_BEYOND)
    assert rows["women", "a_p10", "quantile"].figures.estimate == 1.0


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40)), min_size=2, max_size=4))
@settings(max_examples=60)
def test_nothing_is_shown_beside_a_hidden_figure(counts):
    rows = protect({f"g{i}": (n, min(cases, n)) for i, (n, cases) in enumerate(counts)})
    for (level, outcome, kind), row in rows.items():
        figures = row.figures
        assert figures.n_cases is None and figures.deff is None
        beside = ("a_ge3", "proportion") if outcome.startswith("a_ge3") else ("a_total", "mean")
        other = rows[level, *beside]
        if other.figures.estimate is None and kind not in ("mean", "proportion"):
            made_of = replace(figures, n=None, n_weighted=None, df=None)
            values = [made_of.estimate, made_of.se, made_of.ci_low, made_of.ci_high]
            assert values == [None] * 4
            assert row.disclosure == other.disclosure
        if other.figures.n is None:
            assert figures.n is None and figures.n_weighted is None and figures.df is None
