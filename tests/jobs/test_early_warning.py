"""Which groups the report warns of: traits that rose beyond chance, and no more false alarms than are told."""

from datetime import date

import numpy as np
import pytest
from scipy.stats import false_discovery_control, t

from expectations.codebook import read_codebook
from jobs.early_warning import find_risen, warn_early
from jobs.findings import find_findings
from jobs.words import read_words

BOOK = read_codebook("demo_population")[0].model_copy(
    update={"outcomes": ("depression_mean", "phq9_total"), "breakdowns": ((), ("region",), ("age_band",))}
)
COHORTS = [cohort for cohort in BOOK.cohorts if cohort.key in ("region", "age_band")]
GROUPS = [("all", None, None), *((cohort.key, cohort.key, level) for cohort in COHORTS for level in cohort.groups)]


def find_changes(estimates, se=0.05, df=40, hidden=(), outcome="depression_mean"):
    rows = []
    for place, ((breakdown, key, level), estimate) in enumerate(zip(GROUPS, estimates, strict=True)):
        row = {cohort.key: None for cohort in BOOK.cohorts} | ({key: level} if key else {})
        row |= {"breakdown": breakdown, "outcome": outcome, "kind": "change", "estimate": float(estimate), "se": se}
        row |= {"df": df, "ci_low": estimate - 2 * se, "ci_high": estimate + 2 * se, "presentation": "present"}
        row |= {"disclosure": "suppressed" if place in hidden else "shown", "reason": None, "since": date(2031, 1, 1)}
        rows.append(row)
    return [find_findings(BOOK, words, rows) for words in read_words(BOOK)]


def test_those_that_rose_are_named_the_surest_first_in_both_languages():
    estimates = np.zeros(len(GROUPS))
    estimates[[2, 4]], estimates[3] = (0.25, 0.4), -0.5
    english, chinese = find_changes(estimates)
    told = warn_early(english)
    assert told["tested"] == len(GROUPS) and len(told["lines"]) == 2
    for line, place in zip(told["lines"], (4, 2), strict=True):
        assert GROUPS[place][2] in line and f"+{estimates[place]:.2f}" in line
    assert len(warn_early(chinese)["lines"]) == 2


def test_what_is_withheld_or_is_no_trait_is_not_named():
    estimates = np.zeros(len(GROUPS))
    estimates[[2, 4]] = 0.4
    risen, tested = find_risen(find_changes(estimates, hidden=(4,))[0])
    assert tested == len(GROUPS) - 1 and [cell.levels[0] for _, cell in risen] == [GROUPS[2][2]]
    assert warn_early(find_changes(estimates, outcome="phq9_total")[0]) is None
    assert warn_early([]) is None


@pytest.mark.parametrize("seed", range(3))
def test_alarms_are_those_of_benjamini_and_hochberg(seed):
    estimates = np.random.default_rng(seed).normal(0.05, 0.1, len(GROUPS)).round(3)
    adjusted = false_discovery_control(t.sf(estimates / 0.05, 40))
    risen, _ = find_risen(find_changes(estimates)[0])
    assert {cell.levels for _, cell in risen} == {
        (level,) if level else () for (_, _, level), p in zip(GROUPS, adjusted, strict=True) if p <= 0.05
    }
