"""Codebooks: the shipped ones read, and each mistake is named with its file, its key and the reason."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from expectations.codebook import SHIPPED, Codebook, read_codebook
from expectations.errors import ContractBroken
from jobs.errors import UsageError
from jobs.purpose import require_care

SMALL = """
codebook: small
version: 1
title: Two questions
source: {format: csv, files: [small.csv]}
person_id: id
answered_at: day
design: {weight: w, stratum: s, psu: p}
items:
  - {key: a, column: A, levels: [0, 1, 2], missing: [9]}
  - {key: b, column: B, levels: [0, 1, 2]}
scales:
  - {key: ab, items: [a, b], bands: {low: 0, high: 3}, cut: ">=3", source: made up}
traits:
  - {key: mood, scale: ab}
cohorts:
  - {key: sex, column: sex, map: {1: men, 2: women}}
  - {key: age_band, column: age, breaks: [18, 40], labels: [young, old]}
breakdowns: [[], [sex], [sex, age_band]]
outcomes: [ab_total, ab_ge3, mood_mean]
"""


def write(folder: Path, text: str) -> str:
    file = folder / "book.yaml"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize("name", [path.stem for path in SHIPPED.glob("*.yaml")])
def test_shipped_codebooks_read(name: str) -> None:
    book, digest = read_codebook(name)
    assert book.codebook == name
    assert len(digest) == 64


def test_the_purpose_is_statistics_unless_it_is_stated() -> None:
    book = Codebook.model_validate(yaml.safe_load(SMALL))
    assert book.purpose.use == "statistics"
    with pytest.raises(UsageError, match="the purpose of small is statistics: nothing about one person is shown"):
        require_care(book)
    stated = purpose("use: care, lawful_basis: consent, retention_days: 400", CONSENT)
    care = Codebook.model_validate(yaml.safe_load(SMALL.replace(OUTCOMES, stated)))
    require_care(care)
    assert care.column_types()["ok"] == "text"


def test_a_codebook_is_frozen() -> None:
    book = Codebook.model_validate(yaml.safe_load(SMALL))
    with pytest.raises(ValidationError):
        book.version = 2  # type: ignore[misc]


def test_columns_are_listed_once_with_their_types() -> None:
    book = Codebook.model_validate(yaml.safe_load(SMALL))
    assert book.column_types() == {
        "id": "text",
        "day": "time",
        "w": "number",
        "s": "text",
        "p": "text",
        "A": "number",
        "B": "number",
        "sex": "number",
        "age": "number",
    }


OUTCOMES = "outcomes: [ab_total"


def standard(cohort: str, shares: str) -> str:
    return f"standard: {{cohort: {cohort}, shares: {{{shares}}}, source: made up}}\n{OUTCOMES}"


CONSENT = "consent: {column: ok, agreed: ['1'], refused: ['2']}"


def purpose(stated: str, consent: str = "") -> str:
    return f"purpose: {{{stated}}}\n{consent}\n{OUTCOMES}"


MISTAKES = [
    (OUTCOMES, purpose("use: research"), "purpose.use: Input should be 'statistics' or 'care'"),
    (OUTCOMES, purpose("lawful_basis: habit"), "purpose.lawful_basis: Input should be 'consent', 'contract',"),
    (OUTCOMES, purpose("retention_days: 30"), "purpose.retention_days: Input should be greater than or equal to 31"),
    (OUTCOMES, purpose("use: care", CONSENT), "purpose: `care` needs `lawful_basis` and `retention_days`"),
    (OUTCOMES, purpose("lawful_basis: consent"), "consent: missing, and the purpose rests on it"),
    (OUTCOMES, purpose("", CONSENT.replace("'2'", "no")), "consent.refused[0]: YAML reads yes, no, on, off,"),
    (OUTCOMES, purpose("", CONSENT.replace("'2'", "1")), "consent: the code 1 stands in both `agreed` and `refused`"),
    (OUTCOMES, purpose("", CONSENT.replace("ok", "A")), "column A: one column cannot be two of id, consent"),
    ("{key: b, column: B, levels: [0, 1, 2]}", "{key: a, column: B, levels: [0, 1, 2]}", "items: a stands there twice"),
    ("{key: b, column: B,", "{key: b, column: A,", "items: column: A stands there twice"),
    ("{key: sex, column: sex,", "{key: sex, column: A,", "cohorts: sex is made of column A, which is the item a"),
    ("items: [a, b],", "items: [a, z],", "scales: ab names the unknown item z"),
    ("items: [a, b],", "items: [a, a],", "scales: ab names the item a twice"),
    ("breaks: [18, 40]", "breaks: [18, 18]", "`breaks` overlap"),
    ("breaks: [18, 40]", "breaks: [40, 18]", "`breaks` overlap"),
    ("labels: [young, old]", "labels: [young]", "2 `breaks` need as many `labels`, not 1"),
    ("labels: [young, old]", "labels: [old, old]", "two groups have the same label"),
    ("bands: {low: 0, high: 3}", "bands: {low: 3, high: 0}", "`bands` overlap"),
    ("bands: {low: 0, high: 3}", "bands: {low: 1, high: 3}", "bands must start at 0"),
    ("scale: ab}", "scale: xy}", "traits: mood names the unknown scale xy"),
    ("[sex, age_band]]", "[sex, region]]", "breakdowns: unknown cohort region"),
    ("[sex, age_band]]", "[sex, age_band], [age_band, sex]]", "breakdowns: age_band*sex stands there twice"),
    ("ab_ge3", "cd_ge3", "outcomes: cd_ge3 is neither"),
    ("missing: [9]", "missing: [2]", "items[0] (a): a code stands in both `levels` and `missing`"),
    ("levels: [0, 1, 2], missing", "levels: [0, 2, 1], missing", "items[0] (a): `levels` must rise"),
    ("key: mood", "key: sex", "key sex: used by two parts"),
    ("key: mood", "key: weight", "key weight: reserved"),
    ("psu: p}", "psu: p, nested: true}", "design.nested: Extra inputs are not permitted"),
    ("psu: p}", "psu: p, replicates: {method: JKn, columns: [r1-r3]}}", "design.replicates: JKn needs `rscales`"),
    (
        "psu: p}",
        "psu: p, replicates: {method: JKn, columns: [r1-r3], rscales: [0.5, 0.5]}}",
        "design.replicates: 2 `rscales` for 3 columns",
    ),
    (
        "psu: p}",
        "psu: p, replicates: {method: BRR, columns: [r1-s3]}}",
        "design.replicates: `columns`: r1-s3 is no run",
    ),
    ("psu: p}", "psu: p, replicates: {method: BRR, columns: [r1-r3, r2]}}", "column r2: one column cannot be two of"),
    ("psu: p}", "psu: p, replicates: {method: BRR, columns: ['r 1']}}", "design.replicates.columns[0]: String should"),
    ("psu: p}", "psu: p, replicates: {method: SDR, columns: [r1-r3]}}", "design.replicates.method: Input should be"),
    ("key: mood", "key: replicate_weights", "key replicate_weights: reserved"),
    ("version: 1", "version: one", "version: "),
    ("person_id: id\n", "person_id: id\nperson_id: id2\n", "the key 'person_id' stands twice"),
    ("files: [small.csv]", "files: [small.csv, more.csv]", "several files need `join`"),
    ("files: [small.csv]", "files: [a.csv, b.csv], join: w", "source.join: must be the person_id column id"),
    ("files: [small.csv]", "files: [../other/small.csv]", "`files` must lie in the extract's folder"),
    ("files: [small.csv]", "files: [/etc/passwd]", "source.files[0]: String should match pattern"),
    ("files: [small.csv]", "files: [small.csv], delimiter: '\"'", "`delimiter` cannot be a quote"),
    ("psu: p}", "psu: id}", "column id: one column cannot be two of"),
    ("{key: b, column: B,", "{key: b, column: fate,", "column fate: this name is used while rows are judged"),
    ("{key: b, column: B,", "{key: b, column: a,", "column a: stands there twice, capitals apart"),
    ("key: mood", "key: ab_total", "key ab_total: this column is made of a scale or a trait"),
    ("map: {1: men, 2: women}", "map: {}", "give either `map` or `breaks`"),
    ("labels: [young, old]}", "labels: [young, old], missing: [refused]}", "`missing` codes of a number"),
    ("person_id: id\n", "person_id: id\neligible: java_method('a', 'b') = 1\n", "`java_method` may not stand"),
    ("title: Two questions", "title: 2026-02-30", "not readable YAML"),
    ("source: made up}", "}", "scales[0] (ab).source: Field required"),
    ("title: Two questions", "title: [", "not readable YAML"),
    (OUTCOMES, standard("region", "young: 1"), "standard: unknown cohort region"),
    (OUTCOMES, standard("age_band", "young: 1"), "standard: age_band has the group old, of which there is no share"),
    (OUTCOMES, standard("age_band", "young: 1, old: 2, older: 1"), "standard: age_band has no group older"),
    (OUTCOMES, standard("age_band", "young: 1, old: 0"), "standard.shares.old: Input should be greater than 0"),
    (OUTCOMES, standard("age_band", "young: 1, old: .inf"), "standard.shares.old: Input should be a finite number"),
    (
        OUTCOMES,
        f"standard: {{cohort: sex, shares: {{men: 1, women: 1}}}}\n{OUTCOMES}",
        "standard.source: Field required",
    ),
]


def test_shares_of_the_standard_population_may_have_any_total() -> None:
    book = Codebook.model_validate(yaml.safe_load(SMALL.replace(OUTCOMES, standard("age_band", "young: 30, old: 10"))))
    assert book.standard is not None
    assert book.standard.normalised == {"young": 0.75, "old": 0.25}


@pytest.mark.parametrize(("right", "wrong", "reason"), MISTAKES, ids=[m[2] for m in MISTAKES])
def test_a_mistake_is_named(tmp_path: Path, right: str, wrong: str, reason: str) -> None:
    assert right in SMALL
    with pytest.raises(ContractBroken) as caught:
        read_codebook(write(tmp_path, SMALL.replace(right, wrong)))
    assert reason in str(caught.value)
    assert "book.yaml" in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = SMALL.replace("[a, b]", "[a, z]").replace("ab_ge3", "ab_gt3")
    with pytest.raises(ContractBroken) as caught:
        read_codebook(write(tmp_path, text))
    assert "unknown item z" in str(caught.value)
    assert "ab_gt3" in str(caught.value)


def test_an_unknown_codebook_names_the_shipped_ones() -> None:
    with pytest.raises(ContractBroken, match="demo_population, nhanes_2017_2018"):
        read_codebook("no_such_codebook")
