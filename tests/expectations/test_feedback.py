from pathlib import Path

import pytest

from expectations.codebook import Codebook, read_codebook
from expectations.errors import ContractBroken
from tests.nights.small_night import CODEBOOK, write_codebook

CARE = """\
purpose: {use: care, lawful_basis: consent, retention_days: 400}
consent: {column: agreed, agreed: ["yes"], refused: ["no"]}
"""
FEEDBACK = """\
feedback:
  file: feedback.csv
  given_at: said_at
  helpful: {column: helpful, helped: [1], not_helped: [0]}
  confirmed: {column: severity, scale: mood, map: {none: low, ill: high}}
"""


def read(folder: Path, feedback: str, care: str = CARE) -> Codebook:
    return read_codebook(str(write_codebook(folder, CODEBOOK + care + feedback)))[0]


def test_bands_beyond_the_cut_are_cases(tmp_path: Path) -> None:
    book = read(tmp_path, FEEDBACK)
    assert book.feedback and book.feedback.confirmed
    assert book.list_cases(book.scale("mood")) == ("high",)
    who5 = read_codebook("demo_population")[0].scale("who5")
    turned = who5.model_copy(update={"cut": "<=50", "bands": {"poor": 0, "fair": 51}})
    assert book.list_cases(turned) == ("poor",)


# what is wrong                                     | the sentence says
WRONG = """
file: feedback.csv -> file: ../feedback.csv         | must lie in the extract's folder
scale: mood -> scale: anger                         | confirmed: unknown scale anger
scale: mood -> scale: sleep                         | sleep has no `cut` that a clinician could confirm
ill: high -> ill: severe                            | mood has no band severe
none: low, ill: high -> ill: high                   | needs bands on both sides of the cut
not_helped: [0] -> not_helped: [1]                  | stands in both `helped` and `not_helped`
column: helpful -> column: severity                 | a column is named twice
"""


@pytest.mark.parametrize("line", WRONG.strip().splitlines())
def test_feedback_that_cannot_be_read_is_refused(tmp_path: Path, line: str) -> None:
    change, sentence = (part.strip() for part in line.split("|"))
    before, after = change.split(" -> ")
    assert before in FEEDBACK
    with pytest.raises(ContractBroken, match=sentence):
        read(tmp_path, FEEDBACK.replace(before, after))


def test_nobody_judges_an_analysis_that_nobody_is_shown(tmp_path: Path) -> None:
    with pytest.raises(ContractBroken, match="nobody is shown an analysis under `statistics`"):
        read(tmp_path, FEEDBACK, care="")
