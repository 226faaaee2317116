"""What is published: redaction, rounding, and that nothing redacted can be worked out again."""

from itertools import product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from expectations.outcomes import Outcome
from jobs.disclosure import TOO_FEW, TOO_FEW_CASES, UNIFORM, protect_rows
from jobs.disclosure_profiles import OPENSAFELY, PROFILES, redact_count, redact_fates, redact_parts, round_count
from jobs.following import protect_kinds
from jobs.nonresponse import Class
from jobs.presentation import korn_graubard
from jobs.response import rate_response
from jobs.sums import Audit, Line
from jobs.survey import CohortRow, Estimate
from tests.jobs.recover import find_recoverable

HIDDEN = ("estimate", "se", "ci_low", "ci_high", "ci_method", "deff", "n_cases")


def figures(n: int, n_cases: int | None = None, weight: float = 1000.0, **changes) -> Estimate:
    kind = "mean" if n_cases is None else "proportion"
    p = 3.14159 if n_cases is None else n_cases / n if n else None
    whole = {
        "kind": kind, "n": n, "n_cases": n_cases, "n_weighted": n * weight, "estimate": p, "se": 0.0123456, "df": 15,
        "ci_low": 0.1, "ci_high": 0.2, "ci_method": "korn-graubard", "deff": 1.5, "presentation": "present",
        "reason": None,
    }  # fmt: skip
    return Estimate(**whole | changes)


def row(n: int, n_cases: int | None = None, outcome="phq9_ge10", cell=None, **changes) -> CohortRow:
    cell = cell or {}
    return CohortRow(tuple(cell), tuple(cell.values()), outcome, figures(n, n_cases, **changes))


def protect(one: CohortRow, profile=OPENSAFELY) -> CohortRow:
    return protect_rows([one], profile)[0]


# count -> published, by profile; None is redacted
COUNTS = {
    "opensafely": {0: 0, 1: None, 7: None, 8: 10, 12: 10, 13: 15, 5068: 5070},
    "midpoint6": {0: 0, 1: 3, 6: 3, 7: 9, 12: 9, 13: 15},
    "cms": {0: 0, 1: None, 10: None, 11: 11},
    "nhs_mhsds": {0: None, 4: None, 5: 5, 7: 5, 8: 10},
    "acro": {0: None, 9: None, 10: 10, 11: 11},
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name):
    assert {n: redact_count(n, PROFILES[name]) for n in COUNTS[name]} == COUNTS[name]
    for n, expected in COUNTS[name].items():
        got = protect(row(n, outcome="phq9_total"), PROFILES[name])
        assert got.figures.n == expected
        assert (got.disclosure == "suppressed") == (expected is None)


def test_a_small_count_takes_its_row_with_it():
    got = protect(row(7, 0))
    assert (got.disclosure, got.figures.reason, got.figures.presentation) == ("suppressed", TOO_FEW, "suppress")
    assert all(getattr(got.figures, name) is None for name in (*HIDDEN, "n", "n_weighted", "df"))


# people, with the outcome -> whether the proportion is shown
SIDES = [(100, 0, False), (100, 7, False), (100, 8, True), (100, 92, True), (100, 93, False), (100, 100, False)]


@pytest.mark.parametrize(("n", "n_cases", "shown"), SIDES)
def test_a_small_side_takes_the_estimate_and_leaves_the_count(n, n_cases, shown):
    got = protect(row(n, n_cases, presentation="review", reason="proportion of 0 or 1"))
    assert got.figures.n == 100
    assert (got.disclosure == "shown") == shown == (got.figures.estimate is not None)
    if not shown:
        assert all(getattr(got.figures, name) is None for name in HIDDEN)
        assert (got.figures.presentation, got.figures.reason) == ("suppress", TOO_FEW_CASES)


@pytest.mark.parametrize(("name", "shown"), [("cms", True), ("midpoint6", True), ("nhs_mhsds", False), ("acro", False)])
def test_zero_cases_by_profile(name, shown):
    assert (protect(row(100, 0), PROFILES[name]).disclosure == "shown") == shown


def test_acro_needs_ten_degrees_of_freedom():
    assert protect(row(100, 50, df=9), PROFILES["acro"]).figures.estimate is None
    assert protect(row(100, 50, df=10), PROFILES["acro"]).figures.estimate == 0.5


def test_an_empty_cell_is_shown_as_empty():
    empty = dict.fromkeys(HIDDEN) | {"n_cases": 0, "presentation": "suppress", "reason": "nobody in the cell answered"}
    got = protect(row(0, 0, **{k: v for k, v in empty.items() if k != "n_cases"}))
    assert (got.disclosure, got.figures.n, got.figures.estimate) == ("shown", 0, None)
    assert got.figures.reason == "nobody in the cell answered"


def test_rounding_of_a_proportion():
    got = protect(row(1003, 101, weight=12.3456)).figures
    assert (got.n, got.n_cases, got.deff, got.df) == (1005, None, None, 15)
    assert got.n_weighted == 12400  # 1005 x 12.3456, three digits
    assert got.estimate == 0.1  # 100 / 1005, from rounded counts: 0.0995
    assert got.se == 0.012
    low, high = korn_graubard(0.1, 0.012, 1005, 15)
    assert (got.ci_low, got.ci_high) == (round(low, 3), round(high, 3))


def test_rounding_of_a_mean():
    got = protect(row(1003, outcome="phq9_total")).figures
    assert (got.n, got.estimate, got.se, got.deff) == (1005, 3.13, 0.012, None)  # 3150 / 1005, a rounded sum
    assert (got.ci_low, got.ci_high) == (3.1, 3.16)


@given(st.integers(20, 400), st.floats(0.02, 0.98), st.floats(0.3, 4))
def test_public_figures_do_not_tell_which_count_was_rounded(n, share, deff):
    """Every count that rounds to the published one gives the same row, where all weights are equal."""

    def publish(count):
        n_cases = max(8, min(count - 8, round(share * n)))
        p = n_cases / count
        changes = {"estimate": p, "se": (deff * p * (1 - p) / count) ** 0.5, "weight": 1.0, "df": count - 1}
        return protect(row(count, n_cases, **changes)).figures

    same = [count for count in range(n - 4, n + 5) if round_count(count) == round_count(n)]
    by_cases = {}
    for count in same:
        cases = max(8, min(count - 8, round(share * n)))
        by_cases.setdefault(round_count(cases), set()).add(publish(count))
    assert all(len(rows) == 1 for rows in by_cases.values())


def test_an_unreliable_figure_is_withheld_but_is_no_secret():
    got = protect(row(25, 12, presentation="suppress", reason="sample or effective sample below 30"))
    assert (got.disclosure, got.figures.n, got.figures.estimate) == ("shown", 25, None)
    assert got.figures.reason == "sample or effective sample below 30"


def test_traits_leave_as_other_means_do():
    rows = [row(100, outcome="distress_mean"), row(5, outcome="anxiety_mean"), row(100, outcome="phq9_total")]
    assert [(r.outcome, r.disclosure) for r in protect_rows(rows)] == [
        ("distress_mean", "shown"),
        ("anxiety_mean", "suppressed"),
        ("phq9_total", "shown"),
    ]


def tabulate(counts: dict[tuple[str, ...], tuple[int, int]], cohorts, breakdowns) -> list[CohortRow]:
    """Rows of every breakdown from the (people, cases) of the finest cells; empty ones are left out."""
    rows = []
    for breakdown in breakdowns:
        cells: dict[tuple[str, ...], list[int]] = {}
        for levels, (n, n_cases) in counts.items():
            cell = cells.setdefault(tuple(levels[cohorts.index(name)] for name in breakdown), [0, 0])
            cell[0] += n
            cell[1] += n_cases
        for levels, (n, n_cases) in sorted(cells.items()):
            if n:
                cell = dict(zip(breakdown, levels, strict=True))
                rows += [row(n, n_cases, cell=cell), row(n, outcome="phq9_total", cell=cell)]
    return rows


def without_neighbours(rows: list[CohortRow]) -> list[CohortRow]:
    """Each row protected on its own: what the table would be without complementary suppression."""
    return [protect(one) for one in rows]


def hidden_cells(rows, outcome):
    return {r.cell: r.disclosure for r in rows if r.outcome == outcome and r.disclosure != "shown"}


def test_one_small_cell_takes_the_next_smallest_with_it():
    counts = {("f",): (5, 2), ("m",): (60, 20), ("x",): (40, 15)}
    rows = tabulate(counts, ("sex",), [(), ("sex",)])
    assert hidden_cells(protect_rows(rows), "phq9_total") == {("f",): "suppressed", ("x",): "complementary"}


def test_small_cells_that_would_show_a_small_sum_take_one_more():
    counts = {("f",): (2, 0), ("m",): (60, 20), ("x",): (3, 0)}
    got = hidden_cells(protect_rows(tabulate(counts, ("sex",), [(), ("sex",)])), "phq9_total")
    assert got == {("f",): "suppressed", ("x",): "suppressed", ("m",): "complementary"}


def test_the_smallest_count_that_is_shown_cannot_cover_a_redacted_one():
    # 9 people are hidden together: with at least 1 in one cell and at least 8 in the other, both would be known
    counts = {("f",): (1, 0), ("m",): (60, 20), ("x",): (8, 0)}
    got = hidden_cells(protect_rows(tabulate(counts, ("sex",), [(), ("sex",)])), "phq9_total")
    assert got == {("f",): "suppressed", ("x",): "complementary", ("m",): "complementary"}


def test_a_proportion_hides_a_neighbours_proportion_but_not_its_count():
    counts = {("f",): (180, 3), ("m",): (160, 60), ("x",): (140, 50)}
    got = protect_rows(tabulate(counts, ("sex",), [(), ("sex",)]))
    assert hidden_cells(got, "phq9_ge10") == {("f",): "suppressed", ("x",): "complementary"}
    assert hidden_cells(got, "phq9_total") == {}
    assert all(r.figures.n is not None for r in got)


SEX, AGE, REGION = ("f", "m"), ("18", "30", "60"), ("n", "s")
COHORTS = ("sex", "age", "region")
HIERARCHY = [(), ("sex",), ("sex", "age")]


def test_the_attacker_wins_without_complementary_suppression():
    counts = {(s, a, "n"): (50, 20) for s, a in product(SEX, AGE)} | {("f", "60", "n"): (4, 2)}
    rows = tabulate(counts, COHORTS, HIERARCHY)
    lost = find_recoverable(without_neighbours(rows))
    assert ("phq9_total", ("sex", "age"), ("f", "60"), "count") in lost
    assert ("phq9_ge10", ("sex", "age"), ("f", "60"), "estimate") in lost
    assert find_recoverable(protect_rows(rows)) == []


def test_the_attacker_wins_across_breakdowns_that_share_no_published_total():
    counts = {(s, a, "n"): (50, 20) for s, a in product(SEX, AGE)} | {
        ("f", "60", "n"): (4, 2),
        ("m", "60", "n"): (1, 0),
    }
    rows = tabulate(counts, COHORTS, [("sex",), ("age",)])
    assert ("phq9_total", ("age",), ("60",), "count") in find_recoverable(without_neighbours(rows))
    assert find_recoverable(protect_rows(rows)) == []


def test_two_hidden_cells_in_every_line_are_not_enough():
    """Two blocks of four joined by one cell: each line hides two or more, yet that one cell follows from sums."""
    small = {(s, a) for s, a in product("ab", "12")} | {(s, a) for s, a in product("cd", "34")} | {("b", "3")}
    counts = {(s, a): (5, 2) if (s, a) in small else (50, 20) for s, a in product("abcd", "1234")}
    rows = tabulate(counts, ("sex", "age"), [(), ("sex",), ("age",), ("sex", "age")])
    assert ("phq9_total", ("sex", "age"), ("b", "3"), "count") in find_recoverable(without_neighbours(rows))
    assert find_recoverable(protect_rows(rows)) == []


# sizes of two hidden parts of a total, how far each may be off, and what the audit hides of (first, second, total,
# a third part of 9 that is shown)
AUDITS = [
    ([4, 4, 17], [(-3, 3), (-3, 3), (-9, 0), (-1, 8)], set()),  # one may be higher, the other lower
    ([1, 7, 17], [(0, 6), (-6, 0), (-9, 0), (-1, 8)], set()),
    ([1, 1, 11], [(0, 6), (0, 6), (-3, 0), (-1, 2)], {3}),  # neither may be lower: both are 1, unless the third goes
    ([1, 8, 18], [(0, 6), (0, 10), (-10, 0), (-1, 9)], {3}),
    ([1, 1, 2], [(0, 0), (0, 0), (0, 0), (0, 0)], set()),  # nothing that could be hidden would help
]


@pytest.mark.parametrize(("sizes", "rooms", "cover"), AUDITS)
def test_the_audit_finds_the_cheapest_cover(sizes, rooms, cover):
    audit = Audit([Line(2, (0, 1, 3))], [*sizes, 9], rooms)
    assert audit.find_cover({0, 1}, {0, 1}) == cover
    assert not cover or audit.find_cover({0, 1} | cover, {0, 1} | cover) == set()


def test_the_audit_reads_all_lines_together():
    """Rows and columns hide two cells each, but the odd one out of two blocks follows (see above)."""
    hidden = [(r, c) for r, c in product(range(4), range(4)) if (r < 2) == (c < 2)] + [(1, 2)]
    lines = [Line(16 + r, tuple(4 * r + c for c in range(4))) for r in range(4)]
    lines += [Line(20 + c, tuple(4 * r + c for r in range(4))) for c in range(4)]
    cells = {4 * r + c for r, c in hidden}
    audit = Audit(lines, [50] * 16 + [200] * 8, [(-9.0, 9.0)] * 24)
    assert audit.find_cover(cells, cells - {6}) == set()
    assert len(audit.find_cover(cells, cells)) >= 1


subsets = [b for size in range(4) for b in product(*[COHORTS] * size) if len(set(b)) == size and list(b) == sorted(b)]


@given(
    st.lists(st.integers(0, 60) | st.integers(0, 9), min_size=12, max_size=12),
    st.lists(st.integers(0, 100), min_size=12, max_size=12),
    st.sets(st.sampled_from(subsets), min_size=1),
)
@example([7, 15, 0, 0, 7, 2, 16, 1, 0, 0, 1, 7], [0] * 12, set(subsets))  # no line tells, all of them together do
@settings(max_examples=30)
def test_nothing_redacted_follows_from_what_is_published(people, shares, breakdowns):
    cells = list(product(SEX, AGE, REGION))
    counts = {c: (n, n * share // 100) for c, n, share in zip(cells, people, shares, strict=True)}
    rows = tabulate(counts, COHORTS, sorted(breakdowns))
    public = protect_rows(rows)
    assert find_recoverable(public) == []
    assert [(r.breakdown, r.cell, r.outcome) for r in public] == [(r.breakdown, r.cell, r.outcome) for r in rows]
    for inside, outside in zip(rows, public, strict=True):
        if inside.figures.n <= 7:
            assert outside.figures.n is None and outside.disclosure == "suppressed"
        if outside.figures.n is not None:
            assert outside.figures.n % 5 == 0 and outside.figures.n >= 10
        assert outside.figures.estimate is None or outside.disclosure == "shown"


def test_a_score_that_everybody_has_is_withheld():
    got = protect(row(200, outcome="phq9_total", estimate=0.0, se=0.0))
    assert (got.disclosure, got.figures.estimate, got.figures.reason) == ("suppressed", None, UNIFORM)


@pytest.mark.parametrize(("n", "cases"), [(50_000, 10), (1_000_000, 1_400), (1_000_000, 999_000)])
def test_an_interval_has_a_width_and_the_share_in_it(n, cases):
    p = cases / n
    got = protect(row(n, cases, se=(p * (1 - p) / n) ** 0.5, df=500)).figures
    assert got.ci_low < got.ci_high and got.ci_low <= p <= got.ci_high


def test_parts_of_a_sum_do_not_stand_alone():
    counts = {"whole": 10_000, "out": 500, "twice": 3, "broken": 40, "gone": 0, "in": 9_457}
    assert redact_parts("whole", counts, PROFILES["cms"]) == counts | {"twice": None, "broken": None}
    assert redact_parts("whole", counts | {"twice": 30}, PROFILES["cms"]) == counts | {"twice": 30}
    few = {"whole": 12, "twice": 5, "broken": 7}
    assert set(redact_parts("whole", few, PROFILES["acro"]).values()) == {12, None}
    alone = {"whole": 9, "twice": 9}
    assert set(redact_parts("whole", alone, PROFILES["acro"]).values()) == {None}


@pytest.mark.parametrize("name", PROFILES)
def test_nobody_learns_exactly_how_few_gave_no_answer(name):
    """Two of 503 people gave no answer to a scale: the figures are those of other numbers, too. All have a trait."""
    profile = PROFILES[name]
    outcomes = [Outcome("phq9_total", "mean", "phq9_total"), Outcome("distress_mean", "mean", "distress", latent=True)]

    def publish(people: int, answers: int) -> tuple:
        rows = rate_response({"s": Class(people, 5e4, 0, 0.0)}, {"phq9": answers}, people, profile)
        fates = redact_fates({"delivered": people + 40, "quarantined": 40, "features": people}, profile)
        cells = [row(people, outcome="distress_mean", weight=100.0), row(answers, outcome="phq9_total", weight=100.0)]
        return rows, fates, [one.figures.n for one in protect_kinds(cells, outcomes, {}, profile)]

    told = publish(503, 501)
    pairs = [(n + silent, n) for n in range(496, 507) for silent in range(12)]
    silent = [people - answers for people, answers in pairs if publish(people, answers) == told]
    assert max(silent) - min(silent) >= profile.least_width
