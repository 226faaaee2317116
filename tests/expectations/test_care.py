"""The care file and advice tables: what is wrong with one is named, and nothing is advised that nobody has read."""

import hashlib
from pathlib import Path

import pytest
import yaml

from expectations.advising import SHIPPED
from expectations.care import read_care
from expectations.codebook import Codebook, read_codebook
from expectations.errors import ContractBroken

TABLE = """\
advice: own
rules:
  - {key: tired, item: phq9_4, at_least: 2, say: {en: Rest., zh: 休息。}, source: a guideline}
  - {key: low, scale: phq9, bands: [mild, moderate], say: {en: Talk., zh: 谈谈。}, source: a guideline}
  - {key: worse, scale: gad7, change: risen, say: {en: Ask., zh: 询问。}, source: a guideline}
  - {key: harm, risk: present, say: {en: Ask today., zh: 今天就问。}, source: a guideline}
"""
LINE = {"name": {"en": "a line", "zh": "热线"}, "number": "1", "hours": {"en": "day", "zh": "白天"}}


@pytest.fixture(scope="module")
def book() -> Codebook:
    return read_codebook("demo_population")[0]


def write_care(folder: Path, table: str = TABLE, **changes: object) -> Path:
    (folder / "own.yaml").write_text(table, encoding="utf-8")
    digest = hashlib.sha256(table.encode()).hexdigest()
    review = {"table": "own.yaml", "reviewer": "a reviewer", "reviewed_on": "2026-01-01", "sha256": digest}
    line = {**LINE, "languages": {"en": "English", "zh": "英语"}}
    path = folder / "care.yaml"
    path.write_text(yaml.safe_dump({"help_lines": [line], "advice": [review], "compare": ["sex"], **changes}))
    return path


def test_a_sound_care_file_has_its_rules_and_who_answers_for_them(book: Codebook, tmp_path: Path) -> None:
    care = read_care(write_care(tmp_path), book)
    assert [one.rule.key for one in care.advice] == ["tired", "low", "worse", "harm"]
    assert {(one.table, one.reviewer) for one in care.advice} == {("own", "a reviewer")}
    assert care.compare == ("sex",) and care.responsible is None


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("item: phq9_4", "item: phq9_40", "rule tired: unknown item phq9_40"),
        ("at_least: 2", "at_least: 7", "rule tired: phq9_4 has no answer 7"),
        ("bands: [mild, moderate]", "bands: [mild, awful]", "rule low: phq9 has no band awful"),
        ("scale: gad7", "scale: gad8", "rule worse: unknown scale gad8"),
        ("key: low", "key: tired", "rules: tired stands there twice"),
        (", source: a guideline}\n  - {key: low", "}\n  - {key: low", "rules[0] (tired).source: Field required"),
        ("source: a guideline}\n  - {key: low", "source: ''}\n  - {key: low", "rules[0] (tired).source: String should"),
        ("risk: present", "item: phq9_9", "rules[3] (harm): one condition is needed"),
        ("zh: 休息。", "de: Ruhe.", "rules[0] (tired).say.zh: Field required"),
    ],
)
def test_an_advice_rule_that_cannot_be_used_is_named(
    book: Codebook, tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    assert old in TABLE
    with pytest.raises(ContractBroken) as told:
        read_care(write_care(tmp_path, TABLE.replace(old, new)), book)
    assert sentence in str(told.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"help_lines": []}, "names no help line: no page about a person is made without one"),
        ({"advice": []}, "names no advice table"),
        ({"compare": ["species"]}, "compare: demo_population has no cohort species"),
        ({"advice": [{"table": "phq9"}]}, "advice table phq9.yaml has no reviewer yet"),
        ({"advice": [{"table": "phq99"}]}, "there is no advice table phq99: give a file, or one of gad7, phq9, who5"),
        ({"responsible": {"clinician": "somebody"}}, "responsible.responds_within_hours: Field required"),
        ({"helplines": []}, "helplines: Extra inputs are not permitted"),
    ],
)
def test_a_care_file_that_cannot_be_used_says_why(
    book: Codebook, tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ContractBroken) as told:
        read_care(write_care(tmp_path, **changes), book)
    assert sentence in str(told.value)


def test_a_table_that_has_changed_since_is_read_again(book: Codebook, tmp_path: Path) -> None:
    care = write_care(tmp_path)
    (tmp_path / "own.yaml").write_text(TABLE.replace("Rest.", "Work harder."), encoding="utf-8")
    with pytest.raises(ContractBroken, match=r"own.yaml is not the one that was reviewed on 2026-01-01: have it read"):
        read_care(care, book)


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.yaml")))
def test_shipped_tables_fit_the_demonstration_and_wait_for_a_reviewer(
    book: Codebook, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ContractBroken, match="has no reviewer yet: have a clinician read"):
        read_care(write_care(tmp_path, advice=[{"table": name}]), book)


def test_under_care_the_question_on_harm_has_to_be_marked(tmp_path: Path) -> None:
    text = (Path("expectations/codebooks/demo_population.yaml")).read_text(encoding="utf-8")
    text = text.replace(", risk: true", "").replace(
        "use: statistics, lawful_basis: public_task", "use: care, lawful_basis: consent"
    )
    path = tmp_path / "book.yaml"
    path.write_text(text + 'consent: {column: agreed, agreed: ["yes"], refused: ["no"]}\n', encoding="utf-8")
    with pytest.raises(ContractBroken, match="that item needs `risk: true` under `care`"):
        read_codebook(str(path))
