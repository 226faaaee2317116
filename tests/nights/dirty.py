"""Random dirty extracts, and an oracle in plain Python that says what must become of each of their rows.

The oracle knows the contract by hand-made tables of values, and shares no code with the pass that it judges.
"""

import csv
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from hypothesis import strategies as st

RUN_DATE = "2026-01-05"
BOOK = """
codebook: dirty
version: 1
title: Two questions, asked carelessly
source: {format: csv, files: ["part-*.csv"]}
person_id: id
answered_at: day
design: {weight: w, stratum: s, psu: p, lonely_psu: adjust}
eligible: age >= 18
max_quarantine_share: 1
items:
  - {key: a, column: A, levels: [0, 1, 2, 3], missing: [9]}
  - {key: b, column: B, levels: [0, 1, 2, 3], missing: [9]}
scales: [{key: ab, items: [a, b], source: made up}]
traits: [{key: mood, scale: ab}]
covariates: [{key: age, column: age, kind: count, min: 0, max: 110, required: true}]
cohorts:
  - {key: sex, column: sex, map: {1: men, 2: women}}
  - {key: region, column: region, map: {north: North, l'est: East, 'sør, "ytre"': South, 'a\\b': West}}
breakdowns: [[], [sex]]
outcomes: [ab_total, mood_mean]
"""

COLUMNS = ("id", "day", "w", "s", "p", "A", "B", "age", "sex", "region", "note")
# In the order in which a row's broken rules are named.
RULES = (
    *("row_shape", "person_id_missing", "person_repeated", "day_missing", "day_type", "day_future"),
    *("w_missing", "w_type", "w_positive", "s_missing", "p_missing", "p_in_one_stratum"),
    *("A_type", "A_values", "B_type", "B_values"),
    *("age_missing", "age_type", "age_whole", "age_range", "sex_type", "sex_values", "region_values"),
)
EMPTY_ROW = {"row_shape", "person_id_missing", "day_missing", "w_missing", "s_missing", "p_missing", "age_missing"}

# Every value that is drawn: without the blanks around it, and the rule of its column that it breaks.
CODES = {"0": 0, "1": 1, "2": 2, "3": 3, "1.0": 1, "+1": 1, "2e0": 2, "-0": 0, "9": -1, "": -1}
GOOD_ANSWERS = dict.fromkeys(CODES)
BAD_ANSWERS = dict.fromkeys(("4", "-1", "1.5", "9.5", "1e400", "Infinity", "-inf", "1e-3"), "values") | dict.fromkeys(
    ("often", "1,5", "NaN", "0x1", "1f", "2d", "٢", "--", "\t1", "1\u2028", "3\x85", "½", "'1'", "1 2", 5000 * "x"),
    "type",
)
GOOD_WEIGHTS = dict.fromkeys(("1", "2", "3", "0.25", "1500.75", "1e-3", "+2", ".5", "3."))
BAD_WEIGHTS = (
    dict.fromkeys(("0", "-0", "-1", "-1e-9", "1e-400", "inf", "Infinity", "-Infinity", "1e999"), "positive")
    | dict.fromkeys(("heavy", "nan", "1,5", "1_000", "1d", "0x1p3", "1\u2029", "∞"), "type")
    | {"": "missing"}
)
GOOD_AGES = dict.fromkeys(("18", "30", "64", "110", "31.0", "4e1"))
CHILDREN = dict.fromkeys(("17", "0", "-3", "17.9", "-Infinity"), "ineligible")
BAD_AGES = dict.fromkeys(("old", "30y", "44\u2028"), "type") | dict.fromkeys(("111", "Infinity"), "range")
BAD_AGES |= {"": "missing", "30.5": "whole"}
GOOD_SEXES = dict.fromkeys(("1", "2", "2.0", ""))
BAD_SEXES = {"3": "values", "0": "values", "f": "type", "1\u2028": "type"}
GOOD_REGIONS = dict.fromkeys(("north", "l'est", 'sør, "ytre"', "a\\b", ""))
BAD_REGIONS = dict.fromkeys(("North", "north'", "🙂", "%s", "${x}", "l''est", "a\\\\b", "'", "\\"), "values")


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


GOOD_DAYS = {
    "2026-01-01": utc(2026, 1, 1),
    "2026-01-01T00:00:00": utc(2026, 1, 1),
    "2026-01-02": utc(2026, 1, 2),
    "2026-01-02T08:30:00Z": utc(2026, 1, 2, 8, 30),
    "2026-01-03T00:30:00+02:00": utc(2026, 1, 2, 22, 30),
    "2026-01-03 10:00:00.25": utc(2026, 1, 3, 10, 0, 0, 250_000),
    "2026-01-05T23:59:59": utc(2026, 1, 5, 23, 59, 59),
    "2026-01-06T00:30:00+02:00": utc(2026, 1, 5, 22, 30),
}
FUTURE_DAYS = {
    "2026-01-06": utc(2026, 1, 6),
    "9999-12-31": utc(9999, 12, 31),
    "2026-01-05T23:30:00-02:00": utc(2026, 1, 6, 1, 30),
}
NO_DAYS = ("yesterday", "2026-02-30", "05/01/2026", "2026-13-01", "today", "now", "10:30", "T10:30", "2026", "2026-01")

GOOD = {
    "A": GOOD_ANSWERS, "B": GOOD_ANSWERS, "w": GOOD_WEIGHTS, "age": GOOD_AGES, "sex": GOOD_SEXES,
    "region": GOOD_REGIONS, "day": dict.fromkeys(GOOD_DAYS),
}  # fmt: skip
BAD = {
    "A": BAD_ANSWERS, "B": BAD_ANSWERS, "w": BAD_WEIGHTS, "age": BAD_AGES | CHILDREN, "sex": BAD_SEXES,
    "region": BAD_REGIONS,
    "day": dict.fromkeys(FUTURE_DAYS, "future") | dict.fromkeys(NO_DAYS, "type") | {"": "missing"},
}  # fmt: skip
MEANING = {column: GOOD[column] | BAD[column] for column in GOOD}
DAYS = GOOD_DAYS | FUTURE_DAYS

# `@` stands for the extract's own prefix, so that extracts packed into one delivery share no person and no PSU.
PEOPLE = tuple(f"@-{number}" for number in range(8))
PSUS = tuple(f"@:ü{number}" for number in range(4))
STRATA = ("s0", "s1")
SIZES = (0, 1, 5, 15, 20, 30)
NOTE = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r\n@"), max_size=8)


@st.composite
def draw_row(draw: st.DrawFn) -> list[str]:
    """The fields of a row: a good one, of which up to three fields are spoiled; one has blanks around it."""
    psu = draw(st.integers(0, len(PSUS) - 1))
    row = {"id": draw(st.sampled_from(PEOPLE)), "s": STRATA[psu % 2], "p": PSUS[psu], "note": draw(NOTE)}
    row |= {column: draw(st.sampled_from(sorted(values))) for column, values in GOOD.items()}
    faults = draw(st.sampled_from((0, 0, 0, 1, 1, 2, 3)))
    for column in draw(st.lists(st.sampled_from(COLUMNS[:-1]), min_size=faults, max_size=faults)):
        match column:
            case "id" | "p":
                row[column] = ""
            case "s":
                row[column] = draw(st.sampled_from(["", *STRATA]))
            case _:
                row[column] = draw(st.sampled_from(sorted(BAD[column])))
    padded = draw(st.sampled_from(("id", "w", "s", "p", "A", "age", "region", "note")))
    row[padded] = f" {row[padded]}  "
    return [row[column] for column in COLUMNS]


@st.composite
def draw_line(draw: st.DrawFn) -> str:
    """A row as a line of CSV, most often of the right shape; now and then a blank line."""
    row = draw(draw_row())
    shape = draw(st.sampled_from(["plain"] * 20 + ["quoted", "short", "long", "unclosed", "after quote", "blank"]))
    place = draw(st.integers(1, len(row) - 1))
    match shape:
        case "short":
            row = row[:place]
        case "long":
            row += ["1"] * (place % 3 + 1)
        case "blank":
            return " " * (place % 3)
    fields = [quote(field, always=shape == "quoted") for field in row]
    if shape == "unclosed":
        fields[place] = '"' + fields[place].replace('"', "")
    if shape == "after quote":
        fields[place] = '"1"2'
    return ",".join(fields)


def quote(field: str, always: bool = False) -> str:
    return '"' + field.replace('"', '""') + '"' if always or any(mark in field for mark in '",') else field


@st.composite
def draw_extract(draw: st.DrawFn) -> str:
    """A CSV file as text: a header, and no row to some dozens, with either line end."""
    size = draw(st.sampled_from(SIZES))
    lines = [",".join(COLUMNS), *draw(st.lists(draw_line(), min_size=size, max_size=size))]
    ends = draw(st.sampled_from([["\n"], ["\r\n"], ["\n", "\r\n", "\n\n"]]))
    text = "".join(line + ends[i % len(ends)] for i, line in enumerate(lines))
    return text if draw(st.booleans()) else text.removesuffix("\n").removesuffix("\r")


def clean_extract(people: int) -> str:
    """An extract without a fault, so that a night has people enough to train on; their answers hang together."""
    rows, draw = [",".join(COLUMNS)], np.random.default_rng(1)
    moods = draw.normal(size=(people, 1)) + draw.normal(scale=0.4, size=(people, 2))
    for n, (a, b) in enumerate(np.digitize(moods, (-0.5, 0.3, 1.1))):
        day = f"2026-01-0{1 + n % 2}"
        rows.append(f"@-c{n},{day},1500.75,s{n % 2},@:c{n % 6},{a},{b},{(18, 30, 64)[n % 3]},{1 + n % 2},north,")
    return "\n".join(rows) + "\n"


def faulty_extract() -> str:
    """Every spoiled value of every column once, in a row of its own; of each kind of other fault one row."""
    good = {"id": "@-f", "day": "2026-01-01", "w": "1", "s": "s0", "p": "@:ü0", "A": "0", "B": "0", "age": "30"}
    good |= {"sex": "1", "region": "north", "note": ""}
    faults = [{column: value} for column, values in BAD.items() for value in sorted(values)]
    faults += [{"id": ""}, {"s": ""}, {"p": ""}, {"s": "s1"}]
    rows = [{**good, "id": f"@-f{n}", **fault} for n, fault in enumerate(faults)]
    rows += [{**good, "id": "@-twice"}, {**good, "id": "@-twice", "day": "2026-01-02"}] + 2 * [{**good, "id": "@-tied"}]
    lines = [",".join(COLUMNS), *(",".join(quote(row[column]) for column in COLUMNS) for row in rows), "one,field"]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Judged:
    """A delivered row and what must become of it; `fields` is None where the line cannot be cut into them."""

    fields: dict[str, str] | None
    fate: str = "accepted"
    rules: tuple[str, ...] = ()


def read_rows(text: str) -> list[Judged]:
    """The rows as Python's csv module reads each line."""
    rows = []
    for line in text.replace("\r\n", "\n").split("\n")[1:]:
        if line.strip(" "):
            try:
                fields = [field.strip(" ") for field in next(csv.reader([line], strict=True))]
            except csv.Error:
                fields = []
            whole = len(fields) == len(COLUMNS)
            rows.append(Judged(dict(zip(COLUMNS, fields, strict=True)) if whole else None))
    return rows


def judge(text: str) -> list[Judged]:
    """The rows of an extract in their order, each with its fate and the rules that it breaks."""
    rows = read_rows(text)
    adults = [row.fields for row in rows if row.fields and MEANING["age"][row.fields["age"]] != "ineligible"]
    moments = Counter((f["id"], DAYS.get(f["day"])) for f in adults)
    homes = find_homes(adults)
    judged = []
    for row in rows:
        if row.fields is None:
            judged.append(Judged(None, "quarantined", tuple(rule for rule in RULES if rule in EMPTY_ROW)))
        elif MEANING["age"][row.fields["age"]] == "ineligible":
            judged.append(replace(row, fate="ineligible"))
        else:
            broken = find_broken(row.fields, moments, homes)
            fate = "quarantined" if broken else "accepted"
            judged.append(Judged(row.fields, fate, tuple(rule for rule in RULES if rule in broken)))
    return supersede(judged)


def find_homes(adults: list[dict[str, str]]) -> dict[str, str | None]:
    """The stratum in which most of a PSU's rows lie; None where two hold as many."""
    homes: dict[str, str | None] = {}
    for psu in {fields["p"] for fields in adults}:
        strata = Counter(f["s"] for f in adults if f["p"] == psu and f["s"]).most_common(2)
        tied = len(strata) == 2 and strata[0][1] == strata[1][1]
        homes[psu] = None if tied or not strata else strata[0][0]
    return homes


def find_broken(fields: dict[str, str], moments: Counter, homes: dict[str, str | None]) -> set[str]:
    broken = {f"{column}_{MEANING[column][fields[column]]}" for column in MEANING if MEANING[column][fields[column]]}
    day = DAYS.get(fields["day"])
    if not fields["id"]:
        broken.add("person_id_missing")
    elif day and moments[fields["id"], day] > 1:
        broken.add("person_repeated")
    broken |= {f"{column}_missing" for column in ("s", "p") if not fields[column]}
    if fields["s"] and fields["p"] and homes[fields["p"]] != fields["s"]:
        broken.add("p_in_one_stratum")
    return broken


def supersede(rows: list[Judged]) -> list[Judged]:
    """Of a person's rows that break no rule the latest is accepted."""
    latest: dict[str, datetime] = {}
    good = [row.fields for row in rows if row.fate == "accepted" and row.fields]
    for fields in good:
        latest[fields["id"]] = max(DAYS[fields["day"]], latest.get(fields["id"], utc(1, 1, 1)))
    return [
        replace(row, fate="duplicate")
        if row.fields and row.fate == "accepted" and DAYS[row.fields["day"]] < latest[row.fields["id"]]
        else row
        for row in rows
    ]
