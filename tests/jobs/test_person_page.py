"""The page of one person: help comes first where it may be needed, and nothing is loaded, in both languages."""

import re
from typing import Any

import pytest

from expectations.codebook import Codebook, read_codebook
from jobs.person import warn_early
from jobs.person_page import render_analysis, render_everybody
from jobs.words import read_messages

LINE = {"name": {"en": "A line", "zh": "热线"}, "number": "12 <b>", "hours": {"en": "day", "zh": "白天"}}
RANK = {"percentile": 90.2, "low": 78.4, "high": 99.8}
CHANGES = [
    {"since": "2026-02-01T08:00:00+00:00", "reliable": True, "median": 1.2, "low": 0.4, "high": 2.0, "clear": "risen"},
    {"since": "2026-01-01T08:00:00+00:00", "reliable": True, "median": 0.2, "low": -0.4, "high": 0.8, "clear": None},
    {"since": "2025-12-01T08:00:00+00:00", "reliable": False, "median": 0.0, "low": 0.0, "high": 0.0, "clear": None},
]


@pytest.fixture(scope="module")
def book() -> Codebook:
    return read_codebook("demo_population")[0]


def make_analysis(**changes: Any) -> dict[str, Any]:
    scale = {"scale": "phq9", "label": "PHQ-9 depression score", "total": 12.0, "lowest": 0.0, "highest": 27.0}
    scale |= {"positive": False, "band": "moderate", "answered": 8, "items": 9, "source": "a source"}
    answer = {"item": "phq9_2", "label": "low mood", "answer": 3, "lowest": 0, "highest": 3, "moved": 0.31}
    trait = {"trait": "depression", "label": "Depression", "mean": 1.3, "sd": 0.3, "reference": RANK, "scale": scale}
    trait |= {"group": {**RANK, "cohorts": {"sex": "women", "age_band": "30-44"}}, "answers": [answer]}
    advice = {
        "rule": "low",
        "condition": {"scale": "phq9", "bands": ["moderate"]},
        "say": {"en": "Talk.", "zh": "谈。"},
    }
    advice |= {"source": "a guideline", "reviewer": "a reviewer", "reviewed_on": "2026-01-02", "table": "phq9"}
    return {
        **{"person_id": "ab" * 32, "run_date": "2026-03-01", "model_version": "m", "items_answered": 24, "items": 25},
        **{"codebook": {"name": "demo", "version": 1, "title": "Demonstration population, four scales"}},
        **{
            "answered_at": "2026-02-20T08:00:00+00:00",
            "unusual_answers": None,
            "risk": [],
            "help_lines": [LINE | {"languages": LINE["hours"]}],
        },
        **{"traits": [{**trait, "changes": CHANGES}], "advice": [advice]},
        **changes,
    }


def read_text(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.split("</style>")[1]))


def test_a_page_says_where_how_sure_among_whom_and_since_when(book: Codebook) -> None:
    page = render_analysis(make_analysis(), book, "en")
    said = read_text(page)
    assert re.findall(r"<strong>(Since \d+ \w+)", page) == ["Since 1 February"]
    for sentence in (
        "More signs than in about 90 of 100 people; the true place lies between 78 and 99 in 9 of 10 cases.",
        "Among people of the same group: Women, 30-44",
        "PHQ-9 depression score: 12 of 27 points, in the published range called “moderate”.",
        "8 of its 9 questions were answered.",
        "Since 1 February 2026 it has risen clearly: +1.2 (+0.4 to +2.0).",
        "Since 1 January 2026 there is no clear change: +0.2 (−0.4 to +0.8).",
        "Since 1 December 2025 a change cannot be told from these answers.",
        "low mood 3 (from 0 to 3) ▲ raises it (+0.31)",
        "Talk. Source: a guideline. Reviewed by a reviewer on 2 January 2026.",
        "It is not a diagnosis.",
        "It measures depression, as far as these questions go, and nothing else",
    ):
        assert sentence in said


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("answer", [2, None])
def test_help_stands_first_where_harm_was_told_of_or_left_open(
    book: Codebook, language: str, answer: int | None
) -> None:
    risk = {"item": "phq9_9", "label": "thoughts of self-harm", "answer": answer, "lowest": 0, "highest": 3}
    page = render_analysis(make_analysis(risk=[risk]), book, language)
    assert page.index('class="help urgent"') < page.index('id="results"') and page.count("12 &lt;b&gt;") == 1
    calm = render_analysis(make_analysis(), book, language)
    assert calm.index('class="help"') > calm.index('id="results"') and calm.count("12 &lt;b&gt;") == 1


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_page_loads_nothing_and_runs_nothing(book: Codebook, language: str) -> None:
    page = render_analysis(make_analysis(), book, language)
    assert "default-src 'none'" in page and "<script" not in page and "<b>" not in page
    assert re.findall(r'(?:src|href)="(?!#|tel:)[^"]*"', page) == []
    assert page.count("ab" * 32) == 1 and "lang=" in page


def test_who_answered_nothing_is_told_so(book: Codebook) -> None:
    analysis = make_analysis(items_answered=0, advice=[])
    trait = analysis["traits"][0]
    nothing = {"percentile": None, "low": None, "high": None}
    analysis["traits"] = [{**trait, "reference": nothing, "group": None, "answers": [], "changes": []}]
    analysis["traits"][0]["scale"] = {**trait["scale"], "total": None, "band": None, "answered": 0}
    said = read_text(render_analysis(analysis, book, "en"))
    assert "No question was answered, so nothing is known of this." in said and "<svg" not in said
    assert "not counted, as too few of its questions were answered" in said
    assert "No earlier answers are there to compare with." in said and "No rule of the table fits" in said


def test_every_message_is_there_in_both_languages() -> None:
    english, chinese = (read_messages(f"person.{language}")[0] for language in ("en", "zh"))
    assert set(english) == set(chinese)
    for key, message in english.items():
        own, theirs = (set(re.findall(r"{(\w+)}", text)) for text in (message, chinese[key]))
        assert own == theirs, key


def test_early_warnings_hold_their_share_of_false_ones(book: Codebook) -> None:
    people = [{"person_id": f"{n:064x}", "page": f"{n}.en.html", "p_rise": {"depression": p}} for n, p in enumerate(
        [1e-6, 0.001, 0.04, 0.5, 0.9]
    )]  # fmt: skip
    for one in people:
        one |= {"risk_present": False, "risk_unanswered": False}
    warn_early(people)
    # Of five tests, .04 is adjusted to .067, and .5 to .625.
    assert [one["warned"] for one in people] == [["depression"]] * 3 + [[]] * 2
    responsible = {"clinician": "somebody on duty", "responds_within_hours": 4}
    page = render_everybody({"run_date": "2026-03-01", "responsible": responsible, "people": people}, book, "en")
    assert "looked at by somebody on duty, within 4 hours" in read_text(page) and page.count("Depression") == 3
