"""What the public tables say of hidden figures: the same of all of them, and the audit knows more."""

from jobs.disclosure import NEIGHBOUR, TOO_FEW, protect_rows
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
