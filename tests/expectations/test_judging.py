"""The row pass and the Great Expectations suite: one codebook, the same verdicts."""

from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from expectations.codebook import Codebook
from expectations.errors import ContractBroken
from expectations.judging import appoint_judge, judge_table
from expectations.reading import prepare_rows
from expectations.suite import Past, Verdict, build_extract_suite, build_row_suite, build_summary_suite, run_suites

RUN_DATE = date(2026, 1, 5)
BOOK: dict[str, Any] = yaml.safe_load("""
codebook: small
version: 1
title: Two questions
source: {format: csv, files: [small.csv]}
person_id: id
answered_at: day
design: {weight: w, stratum: s, psu: p}
eligible: age >= 18
items:
  - {key: a, column: A, levels: [0, 1, 2], missing: [9]}
  - {key: b, column: B, levels: [0, 1, 2]}
scales: [{key: ab, items: [a, b], source: made up}]
traits: [{key: mood, scale: ab}]
covariates: [{key: age, column: age, kind: count, min: 0, max: 110, required: true}]
cohorts:
  - {key: sex, column: sex, map: {1: men, 2: women}}
  - {key: region, column: region, map: {north: North, south: South}, missing: [unknown]}
outcomes: [ab_total]
rules: [{name: sober, sql: NOT (A = 2 AND age > 100)}]
""")
COLUMNS = ["person_id", "day", "w", "s", "p", "A", "B", "age", "sex", "region", "malformed", "unmatched"]
GOOD = ["p0", "2026-01-01", "1.5", "s1", "u1", "0", "1", "30", "1", "north", False, False]

# What differs from a good row of a person of their own, and the rules that the row then breaks.
CASES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"A": "9"}, []),
    ({"A": None, "B": ""}, []),
    ({"A": " 2 "}, []),
    ({"A": "1.0"}, []),
    ({"sex": None, "region": None}, []),
    ({"region": "unknown"}, []),
    ({"day": "2026-01-05T23:30:00"}, []),
    ({"w": "1e-3"}, []),
    ({"A": "3"}, ["A_values"]),
    ({"A": "1.5"}, ["A_values"]),
    ({"A": "often"}, ["A_type"]),
    ({"B": "9", "sex": "3"}, ["B_values", "sex_values"]),
    ({"region": "North"}, ["region_values"]),
    ({"age": None}, ["age_missing"]),
    ({"age": "111"}, ["age_range"]),
    ({"age": "30.0"}, []),
    ({"age": "30.5"}, ["age_whole"]),
    ({"A": "2", "age": "101"}, ["sober"]),
    ({"w": None}, ["w_missing"]),
    ({"w": "heavy"}, ["w_type"]),
    ({"w": "0"}, ["w_positive"]),
    ({"w": "-1"}, ["w_positive"]),
    ({"w": "Infinity"}, ["w_positive"]),
    ({"w": "inf"}, ["w_positive"]),
    ({"w": "nan"}, ["w_type"]),
    ({"s": None}, ["s_missing"]),
    ({"p": "  "}, ["p_missing"]),
    ({"s": "s9"}, ["p_in_one_stratum"]),
    ({"day": None}, ["day_missing"]),
    ({"day": "yesterday"}, ["day_type"]),
    ({"day": "2026-02-30"}, ["day_type"]),
    ({"day": "2026-01-06"}, ["day_future"]),
    ({"person_id": None}, ["person_id_missing"]),
    ({"malformed": True}, ["row_shape"]),
    ({"malformed": True, "age": "3"}, ["row_shape"]),
]


def make_frame(spark: SparkSession, rows: list[dict[str, Any]]) -> DataFrame:
    text = ", ".join(f"{name} string" for name in COLUMNS[:-2])
    values = [[{**dict(zip(COLUMNS, GOOD, strict=True)), **row}[name] for name in COLUMNS] for row in rows]
    frame = spark.createDataFrame(values, f"{text}, malformed boolean, unmatched boolean")
    return frame.withColumn("source_file", F.lit("small.csv"))


def make_book(**changes: Any) -> Codebook:
    return Codebook.model_validate({**BOOK, **changes})


def judge(spark: SparkSession, rows: list[dict[str, Any]], book: Codebook) -> pa.Table:
    return judge_table(prepare_rows(make_frame(spark, rows), book).toArrow(), appoint_judge(book, RUN_DATE))


@pytest.fixture(scope="module")
def judged(spark: SparkSession) -> pa.Table:
    rows = [{"person_id": f"p{i}", **case} for i, (case, _) in enumerate(CASES)]
    return judge(spark, rows, make_book())


def test_each_row_breaks_its_own_rules(judged: pa.Table) -> None:
    found = {row["person_id"]: row["failed_rules"] for row in judged.to_pylist()}
    expected = {case.get("person_id", f"p{i}"): rules for i, (case, rules) in enumerate(CASES)}
    assert found == expected


def test_great_expectations_counts_the_same(spark: SparkSession, judged: pa.Table, tmp_path: Path) -> None:
    past = Past(rows=100, null_shares={"A": 0.0, "B": 0.5}, answer_shares={})
    counted = Counter(rule for rules in judged["failed_rules"].to_pylist() for rule in rules)
    book = make_book()
    pq.write_table(judged, tmp_path / "judged.parquet")
    rows = spark.read.parquet(str(tmp_path / "judged.parquet"))
    batches = [
        (rows, build_extract_suite(book, past)),
        (rows.where("eligible"), build_row_suite(book, RUN_DATE, past)),
    ]
    verdicts = run_suites(batches, tmp_path / "docs")
    judged_by_rule = {v.rule: v for v in verdicts}
    rules = {v.rule: v.unexpected for v in verdicts if v.severity == "warning"}
    assert {rule: n for rule, n in rules.items() if n} == counted
    assert all(v.success == (v.unexpected == 0) for v in verdicts if v.severity == "warning")
    assert not judged_by_rule["row_count"].success, "34 rows after 100 are a drift"
    assert judged_by_rule["rows"].success
    assert judged_by_rule["B_null_share"].success
    check_docs_hold_no_answer(tmp_path / "docs")


def check_docs_hold_no_answer(docs: Path) -> None:
    pages = [path.read_text(errors="replace") for path in docs.rglob("*.html")]
    assert len(pages) >= 3
    for value in ("often", "heavy", "yesterday", "2026-02-30", "s9"):
        assert not any(value in page for page in pages), value


def test_drift_and_lonely_psus_are_judged_on_summaries(spark: SparkSession, tmp_path: Path) -> None:
    rows = [("A", 0.05, None), ("B", 0.3, None), ("s1", None, 2), ("s2", None, 1)]
    summary = spark.createDataFrame(rows, "subject string, answer_share_shift double, psus_in_stratum bigint")
    verdicts = run_suites([(summary, build_summary_suite(make_book()))], tmp_path)
    assert verdicts == [Verdict("answer_shares", "info", False, 1), Verdict("lonely_psu", "critical", False, 1)]


def fates(spark: SparkSession, book: Codebook, rows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    found = judge(spark, rows, book).to_pylist()
    return sorted((r["person_id"], str(r["day__raw"]) if book.answered_at else r["A__raw"], r["fate"]) for r in found)


def test_the_latest_row_wins_and_ties_go_to_quarantine(spark: SparkSession) -> None:
    rows = [
        {"person_id": "twice", "day": "2026-01-01"},
        {"person_id": "twice", "day": "2026-01-02"},
        {"person_id": "tied", "day": "2026-01-02"},
        {"person_id": "tied", "day": "2026-01-02"},
        {"person_id": "bad last", "day": "2026-01-01"},
        {"person_id": "bad last", "day": "2026-01-02", "A": "7"},
        {"person_id": "grown up", "day": "2026-01-01", "age": "17"},
        {"person_id": "grown up", "day": "2026-01-02", "age": "18"},
    ]
    assert fates(spark, make_book(), rows) == [
        ("bad last", "2026-01-01", "accepted"),
        ("bad last", "2026-01-02", "quarantined"),
        ("grown up", "2026-01-01", "ineligible"),
        ("grown up", "2026-01-02", "accepted"),
        ("tied", "2026-01-02", "quarantined"),
        ("tied", "2026-01-02", "quarantined"),
        ("twice", "2026-01-01", "duplicate"),
        ("twice", "2026-01-02", "accepted"),
    ]


def test_without_a_date_of_answers_everybody_who_comes_twice_goes_to_quarantine(spark: SparkSession) -> None:
    rows = [{"person_id": "once", "A": "0"}, {"person_id": "twice", "A": "1"}, {"person_id": "twice", "A": "2"}]
    assert fates(spark, make_book(answered_at=None), rows) == [
        ("once", "0", "accepted"),
        ("twice", "1", "quarantined"),
        ("twice", "2", "quarantined"),
    ]


def test_a_psu_that_two_strata_share_equally_has_no_home(spark: SparkSession) -> None:
    rows = [{"person_id": f"p{i}", "s": f"s{i % 2}"} for i in range(4)]
    assert {fate for _, _, fate in fates(spark, make_book(), rows)} == {"quarantined"}
    nested = make_book(design={**BOOK["design"], "nest": True})
    assert {fate for _, _, fate in fates(spark, nested, rows)} == {"accepted"}


@pytest.mark.parametrize(("key", "change"), [("eligible", "agee > 3"), ("rules", [{"name": "odd", "sql": "A >"}])])
def test_sql_that_cannot_be_read_is_named(spark: SparkSession, key: str, change: Any) -> None:
    with pytest.raises(ContractBroken, match=f"codebook small: {key}"):
        prepare_rows(make_frame(spark, [{}]), make_book(**{key: change}))
