"""The demonstration population: the same for everybody, and as its counts and its parameters say."""

import csv
from collections import Counter, defaultdict
from datetime import date
from math import isfinite
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from expectations.codebook import read_codebook
from expectations.judging import appoint_judge, judge_table
from expectations.reading import prepare_rows
from jobs.demo import Plan, expected_counts, truth_folder, write_demo, write_part, write_parts
from jobs.demo_model import EFFECTS, ITEMS, POPULATION, POSITIVE, TRAITS, build_country
from jobs.demo_rows import COLUMNS, DEFECTS, shuffle_ids
from jobs.errors import UsageError
from jobs.sources import read_extract

RUN_DATE = date(2026, 1, 15)
PEOPLE, SEED = 20_000, 3
ITEM_COLUMNS = range(COLUMNS.index("phq9_1"), len(COLUMNS))

# The rule that each defect breaks; an item's rules carry its name.
RULES = {
    "unknown_answer": "<item>_values",
    "text_in_number": "<item>_type",
    "id_missing": "person_id_missing",
    "id_repeated": "person_repeated",
    "weight_missing": "weight_missing",
    "weight_zero": "weight_positive",
    "weight_negative": "weight_positive",
    "weight_infinite": "weight_positive",
    "stratum_missing": "stratum_missing",
    "psu_missing": "psu_missing",
    "psu_in_foreign_stratum": "psu_in_one_stratum",
    "answered_at_missing": "answered_at_missing",
    "answered_at_unreadable": "answered_at_type",
    "answered_at_in_future": "answered_at_future",
    "covariate_missing": "age_missing",
    "covariate_out_of_range": "household_size_range",
    "unknown_cohort_code": "education_values",
    "implausible_employment": "employed_at_plausible_age",
    "too_few_fields": "row_shape",
    "too_many_fields": "row_shape",
}


@pytest.fixture(scope="module")
def demo(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("demo") / "2026-01-15"
    counts = write_demo(spark, folder, PEOPLE, SEED, run_date=RUN_DATE, dirty_share=0.01)
    truth = pq.read_table(sorted(truth_folder(folder).glob("*.parquet"))).to_pydict()
    return SimpleNamespace(folder=folder, counts=counts, rows=read_rows(folder), truth=truth)


def read_rows(folder: Path) -> list[list[str]]:
    rows = []
    for file in sorted(folder.glob("people-*.csv")):
        with file.open(encoding="utf-8", newline="") as lines:
            header, *part = csv.reader(lines)
            assert tuple(header) == COLUMNS
            rows += part
    return rows


def read_bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def column(rows: list[list[str]], name: str) -> list[str]:
    return [row[COLUMNS.index(name)] for row in rows]


def whole_rows(demo: Any) -> list[list[str]]:
    return [row for row in demo.rows if len(row) == len(COLUMNS)]


def test_columns_are_the_codebooks() -> None:
    book, _ = read_codebook("demo_population")
    assert sorted(COLUMNS) == sorted(book.column_types())
    assert [item.key for item in book.items] == list(ITEMS)
    assert [len(item.levels) - 1 for item in book.items] == [len(thresholds) for _, thresholds in ITEMS.values()]
    reversed_items = {item.key for item in book.items if item.reversed}
    positive = {key for scale in book.scales if scale.positive for key in scale.items}
    assert reversed_items | positive == set(POSITIVE)
    assert {t.key: t.scale for t in book.traits} == dict(zip(TRAITS, ("phq9", "gad7", "pss4", "who5"), strict=True))


def test_same_seed_same_bytes_in_any_order(spark: SparkSession, tmp_path: Path) -> None:
    plan = Plan(3_000, SEED, RUN_DATE, 0.01, people_per_part=800)
    counts = write_parts(spark, plan, tmp_path / "a", tmp_path / "a-truth")
    for name in ("b", "b-truth"):
        (tmp_path / name).mkdir()
    country = build_country(plan.people)
    alone: Counter[str] = Counter()
    for part in (2, 0, 3, 1):
        alone.update(write_part(plan, country, part, tmp_path / "b", tmp_path / "b-truth"))
    assert dict(alone) == counts
    assert list(read_bytes(tmp_path / "a")) == [f"people-{part:04d}.csv" for part in range(4)]
    assert read_bytes(tmp_path / "a") == read_bytes(tmp_path / "b")
    assert read_bytes(tmp_path / "a-truth") == read_bytes(tmp_path / "b-truth")


def test_a_second_run_replaces_the_first_and_leaves_nothing_else(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "extract"
    write_demo(spark, folder, 1_000, 1, run_date=RUN_DATE)
    first = read_bytes(folder), read_bytes(truth_folder(folder))
    write_demo(spark, folder, 1_000, 2, run_date=RUN_DATE)
    assert read_bytes(folder) != first[0]
    write_demo(spark, folder, 1_000, 1, run_date=RUN_DATE)
    assert (read_bytes(folder), read_bytes(truth_folder(folder))) == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["extract", "extract-truth"]
    assert sorted(first[0]) == ["SHA256SUMS", "people-0000.csv"]


@pytest.mark.parametrize(
    ("people", "seed", "share", "word"),
    [(999, 1, 0.0, "people"), (1_000, -1, 0.0, "seed"), (1_000, 1, 0.5, "dirty"), (1_000, 1, -0.1, "dirty")],
)
def test_numbers_out_of_bounds(
    spark: SparkSession, tmp_path: Path, people: int, seed: int, share: float, word: str
) -> None:
    with pytest.raises(UsageError, match=word):
        write_demo(spark, tmp_path / "extract", people, seed, run_date=RUN_DATE, dirty_share=share)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_other_files_is_left_alone(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt"):
        write_demo(spark, tmp_path, 1_000, 1, run_date=RUN_DATE)
    assert read_bytes(tmp_path) == {"notes.txt": b"mine"}


def test_counts_add_up(demo: Any) -> None:
    counts = demo.counts
    assert expected_counts(demo.folder)["counts"] == counts
    assert counts["sampled"] == PEOPLE == len(demo.truth["respondent_id"])
    assert counts["sampled"] - counts["absent"] == sum(demo.truth["appears"])
    assert counts["delivered"] == len(demo.rows)
    gone = counts["ineligible"] + counts["superseded"] + sum(counts[kind] for kind in DEFECTS)
    assert counts["delivered"] == counts["clean"] + gone
    # The second rows of those who answered twice come on top of the people who appear.
    twice = counts["superseded"] + counts["id_repeated"] // 2
    assert counts["delivered"] == counts["sampled"] - counts["absent"] + twice
    assert all(counts[kind] == (20 if kind == "id_repeated" else 10) for kind in DEFECTS)
    assert 0.10 < counts["absent"] / PEOPLE < 0.16
    assert counts["superseded"] == 100 and counts["ineligible"] > 50 and counts["no_answers"] > 100


def test_every_defect_is_found_as_often_as_counted(demo: Any) -> None:
    rows = whole_rows(demo)
    found: Counter[str] = Counter()
    found["too_few_fields"] = sum(len(row) < len(COLUMNS) for row in demo.rows)
    found["too_many_fields"] = sum(len(row) > len(COLUMNS) for row in demo.rows)
    found["unknown_answer"] = sum(row[i] == "8" for row in rows for i in ITEM_COLUMNS)
    found["text_in_number"] = sum(row[i] == "often" for row in rows for i in ITEM_COLUMNS)
    weights = column(rows, "weight")
    found["weight_missing"] = weights.count("")
    known = [float(w) for w in weights if w]
    found["weight_zero"] = sum(w == 0 for w in known)
    found["weight_negative"] = sum(w < 0 for w in known)
    found["weight_infinite"] = sum(not isfinite(w) for w in known)
    found["stratum_missing"] = column(rows, "stratum").count("")
    found["psu_missing"] = column(rows, "psu").count("")
    home = dict(zip(demo.truth["psu"], demo.truth["stratum"], strict=True))
    pairs = [p for p in zip(column(rows, "psu"), column(rows, "stratum"), strict=True) if all(p)]
    found["psu_in_foreign_stratum"] = sum(home[psu] != stratum for psu, stratum in pairs)
    times = column(rows, "answered_at")
    found["answered_at_missing"] = times.count("")
    found["answered_at_unreadable"] = times.count("last Tuesday")
    found["answered_at_in_future"] = sum("2026-01-16" <= t < "a" for t in times)
    found["covariate_missing"] = column(rows, "age").count("")
    found["covariate_out_of_range"] = column(rows, "household_size").count("45")
    found["unknown_cohort_code"] = column(rows, "education").count("7")
    worked_at = zip(column(rows, "age"), column(rows, "employment"), strict=True)
    found["implausible_employment"] = sum(age == "104" and job == "1" for age, job in worked_at)
    ids = column(demo.rows, "respondent_id")
    found["id_missing"] = ids.count("")
    moments: defaultdict[str, list[str]] = defaultdict(list)
    for person, moment in zip(ids, column(demo.rows, "answered_at"), strict=True):
        moments[person].append(moment)
    del moments[""]
    found["id_repeated"] = sum(len(m) for m in moments.values() if len(m) > len(set(m)))
    assert found == {kind: demo.counts[kind] for kind in DEFECTS}
    assert sum(len(m) - 1 for m in moments.values() if len(m) == len(set(m))) == demo.counts["superseded"]
    assert sum(age != "" and int(age) < 18 for age in column(rows, "age")) == demo.counts["ineligible"]
    silent = sum(all(row[i] == "" for i in ITEM_COLUMNS) for row in rows)
    assert silent == demo.counts["no_answers"]
    assert not any(row[i] not in {*"0123458", "-7", "-9", "", "often"} for row in rows for i in ITEM_COLUMNS)


def test_every_defect_breaks_its_one_rule(spark: SparkSession, demo: Any, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    book, _ = read_codebook("demo_population")
    delivered = read_extract(spark, book, demo.folder, key)
    prepared = prepare_rows(delivered.frame, book).toArrow()
    judged = judge_table(prepared, appoint_judge(book, RUN_DATE)).select(["fate", "failed_rules"]).to_pylist()
    fates = Counter(row["fate"] for row in judged)
    dirty = sum(demo.counts[kind] for kind in DEFECTS)
    assert fates == {
        "accepted": demo.counts["clean"],
        "duplicate": demo.counts["superseded"],
        "ineligible": demo.counts["ineligible"],
        "quarantined": dirty,
    }
    broken: Counter[str] = Counter()
    for row in judged:
        if row["fate"] != "quarantined":
            continue
        # The fields of a row that cannot be cut are empty, so it breaks the rules of presence too.
        rule, *more = row["failed_rules"]
        assert rule == "row_shape" or not more
        stem, _, kind = rule.rpartition("_")
        broken[f"<item>_{kind}" if stem in ITEMS else rule] += 1
    expected: Counter[str] = Counter()
    for kind, rule in RULES.items():
        expected[rule] += demo.counts[kind]
    assert set(RULES) == set(DEFECTS)
    assert broken == expected


def test_without_dirt_every_row_is_good(spark: SparkSession, tmp_path: Path) -> None:
    counts = write_demo(spark, tmp_path / "extract", 1_000, 1, run_date=RUN_DATE, dirty_share=0)
    assert not any(counts[kind] for kind in DEFECTS)
    rows = read_rows(tmp_path / "extract")
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert all(0 < float(w) < POPULATION for w in column(rows, "weight"))
    strata = defaultdict(set)
    for psu, stratum in zip(column(rows, "psu"), column(rows, "stratum"), strict=True):
        strata[stratum].add(psu)
    assert len(strata) == 20 and min(len(psus) for psus in strata.values()) >= 2
    assert sum(len(psus) for psus in strata.values()) == len(set(column(rows, "psu")))


def test_ids_are_distinct_and_in_no_order() -> None:
    numbers = shuffle_ids(np.arange(300_000), SEED)
    assert len(np.unique(numbers)) == 300_000 and numbers.min() >= 0 and numbers.max() < 10**9
    assert abs(np.corrcoef(np.arange(300_000), numbers)[0, 1]) < 0.01
    assert len(np.unique(np.diff(numbers))) > 290_000


def test_weights_stand_for_the_population_and_matter(demo: Any) -> None:
    appears = np.array(demo.truth["appears"])
    weight = np.array(demo.truth["weight"])
    assert (weight > 0).all()
    assert weight[appears].sum() == pytest.approx(POPULATION, rel=0.03)
    depression = np.array(demo.truth["depression"])
    weighted = np.average(depression[appears], weights=weight[appears])
    assert abs(weighted) < 0.06
    assert depression[appears].mean() - weighted > 0.04


def known_people(demo: Any) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Covariates, true traits (n, 4) and PSU effects of the people whose row is readable."""
    index = {person: i for i, person in enumerate(demo.truth["respondent_id"])}
    rows = {}
    for row in whole_rows(demo):
        numbers = [row[COLUMNS.index(n)] for n in ("age", "sex", "education", "employment", "household_size")]
        if row[0] and "" not in numbers and not {"-9", "7"} & set(numbers[2:4]) and "104" not in numbers[:1]:
            rows[row[0]] = row
    people = {name: np.array(column(list(rows.values()), name)) for name in COLUMNS}
    traits = np.array([[demo.truth[trait][index[person]] for trait in TRAITS] for person in rows])
    psus = np.array([demo.truth["psu"][index[person]] for person in rows])
    effects = expected_counts(demo.folder)["parameters"]["psu_effects"]
    return people, traits, np.array([effects[psu] for psu in psus])


def test_traits_have_the_stated_effects_and_correlations(demo: Any) -> None:
    parameters = expected_counts(demo.folder)["parameters"]
    people, traits, psu_effect = known_people(demo)
    age = people["age"].astype(int)
    groups: dict[str, np.ndarray] = {name: people[name] for name in ("sex", "education", "employment", "region")}
    starts = np.array(sorted(EFFECTS["age_group"]))
    groups["age_group"] = starts[np.searchsorted(starts, age, side="right") - 1].astype(str)
    groups["household_size"] = people["household_size"]
    income = parameters["income_effect"]
    design = [np.ones(len(age)), (people["income_log"].astype(float) - income["mean"]) / income["sd"]]
    names = []
    for cohort, levels in parameters["effects"].items():
        for level, effect in levels.items():
            if any(effect):
                names.append((cohort, level))
                design.append((groups[cohort] == level).astype(float))
    x = np.column_stack(design)
    fitted, *_ = np.linalg.lstsq(x, traits - psu_effect[:, None], rcond=None)
    assert np.abs(fitted[0] - parameters["baseline"]).max() < 0.08
    assert np.abs(fitted[1] - income["per_sd"]).max() < 0.04
    for (cohort, level), estimate in zip(names, fitted[2:], strict=True):
        n = (groups[cohort] == level).sum()
        assert np.abs(estimate - parameters["effects"][cohort][level]).max() < 0.03 + 4.5 / np.sqrt(n), (cohort, level)
    residual = traits - psu_effect[:, None] - x @ fitted
    assert np.abs(np.cov(residual.T) - np.array(parameters["residual_correlations"])).max() < 0.04
    # Without any model: women are more anxious than men by about the stated gap.
    gap = traits[people["sex"] == "2", 1].mean() - traits[people["sex"] == "1", 1].mean()
    assert gap == pytest.approx(0.30, abs=0.06)


def test_answers_follow_the_traits(demo: Any) -> None:
    people, traits, _ = known_people(demo)
    for key, (discrimination, thresholds) in ITEMS.items():
        codes = people[key]
        answered = np.isin(codes, list("012345"))
        assert 0.93 < answered.mean() < 0.99
        score = codes[answered].astype(int)
        score = len(thresholds) - score if key in POSITIVE else score
        trait = traits[answered, ("phq9", "gad7", "pss4", "who5").index(key.split("_")[0])]
        for k, threshold in enumerate(thresholds, start=1):
            chance = 1 / (1 + np.exp(-discrimination * (trait - threshold)))
            sd = np.sqrt((chance * (1 - chance)).sum()) / len(score)
            assert abs((score >= k).mean() - chance.mean()) < 5 * sd + 5e-4, (key, k)
        if key.startswith("phq9"):
            assert np.bincount(score).argmax() == 0


def test_items_are_missing_more_often_among_the_old_and_the_poor(demo: Any) -> None:
    people, _, _ = known_people(demo)
    missing = np.isin(np.column_stack([people[key] for key in ITEMS]), ["", "-7", "-9"])
    some = ~missing.all(axis=1)
    share = missing[some].mean(axis=1)
    age, income = people["age"][some].astype(int), people["income_log"][some].astype(float)
    assert share[age >= 60].mean() > 1.2 * share[age < 45].mean()
    assert share[income < 10].mean() > 1.2 * share[income > 10.6].mean()
