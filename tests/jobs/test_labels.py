"""What the public tables say of hidden figures: the same of all of them, and the audit knows more."""

from jobs.disclosure import NEIGHBOUR, TOO_FEW, TOO_FEW_DF, protect_rows
from jobs.disclosure_profiles import PROFILES
from jobs.labels import WITHHELD, list_hidden, merge_labels, restore_labels
from tests.jobs.test_disclosure import row


def test_a_small_cell_and_its_cover_look_alike():
    cells = {None: 60, "f": 3, "m": 26, "x": 31}
    exact = [row(n, outcome="phq9_total", cell={"sex": sex} if sex else None) for sex, n in cells.items()]
    protected = protect_rows(exact)
    hidden = list_hidden(protected)
    assert {one.figures.reason for one in hidden} == {TOO_FEW, NEIGHBOUR}
    published = merge_labels(protected)
    small, cover = (one for one in published if one.disclosure != "shown")
    assert (small.figures, small.disclosure) == (cover.figures, cover.disclosure)
    assert (small.disclosure, small.figures.reason) == ("suppressed", WITHHELD)
    assert [one for one in published if one.disclosure == "shown"] == [p for p in protected if p.disclosure == "shown"]
    assert restore_labels(published, hidden) == protected


def test_too_few_degrees_of_freedom_are_told_whatever_else_a_cell_hides():
    exact = [row(900, cases, cell={"sex": sex}, df=8) for sex, cases in (("f", 300), ("m", 3))]
    published = merge_labels(protect_rows(exact, PROFILES["acro"]))
    assert {(one.figures.reason, one.figures.df, one.disclosure) for one in published} == {
        (TOO_FEW_DF, 8, "suppressed")
    }
