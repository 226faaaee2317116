"""The row pass: every delivered row is read as the codebook says and gets its broken rules and its fate.

Arrow tables in and out, each with all rows of its people. Answers repeat, so every column is a dictionary, and a rule
looks at its few values instead of its many rows. A worker of Spark imports this, and no more.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from expectations.codebook import Codebook
from expectations.rules import NUMBER, RAW, REPLICATES, Rule, build_rules, helper

# What becomes of a delivered row; each row has exactly one fate.
ACCEPTED, QUARANTINED, INELIGIBLE, DUPLICATE = FATES = ("accepted", "quarantined", "ineligible", "duplicate")
# What most numbers look like, in a spelling that Arrow reads as Python does.
PLAIN_NUMBER = r"^[0-9]+([.][0-9]+)?$"
READS_NUMBER = re.compile(NUMBER.replace(r"\z", r"\Z"))
TIME = pa.timestamp("us", tz="UTC")
KINDS = {"O": pa.string(), "f": pa.float64(), "b": pa.bool_(), "i": TIME}  # of NumPy's values, in Arrow
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Judge:
    """What of a codebook a worker needs: the columns with their types (no id), and the rules.

    Replicate weights stand apart from the other columns: many, and hardly two rows with the same.
    """

    types: Mapping[str, str]
    answered_at: str | None
    counts: Mapping[str, tuple[Any, ...]]  # covariates that count something: their columns, and their missing codes
    rules: tuple[Rule, ...]
    replicates: tuple[str, ...] = ()


def appoint_judge(book: Codebook, run_date: date) -> Judge:
    types = {name: kind for name, kind in book.column_types().items() if name != book.person_id}
    counts = {part.column: tuple(part.missing) for part in book.covariates if part.kind == "count"}
    replicates = book.replicate_columns()
    types = {name: kind for name, kind in types.items() if name not in replicates}
    return Judge(types, book.answered_at, counts, build_rules(book, run_date), replicates)


@dataclass(frozen=True)
class Coded:
    """A column as positions (one a row, -1 = null) in its values."""

    codes: NDArray[np.int32]
    values: NDArray[Any]

    def spread(self, of_values: Flags) -> Flags:
        """What holds of a row's value holds of the row; nothing holds of a null."""
        return np.append(of_values, False).astype(bool)[self.codes]

    @property
    def is_null(self) -> Flags:
        return np.less(self.codes, 0)

    def to_arrow(self) -> pa.Array:
        """Texts stay a dictionary; whole numbers are times."""
        codes = pa.array(self.codes, mask=self.is_null)
        found = pa.array(self.values).cast(KINDS[self.values.dtype.kind])
        return pa.DictionaryArray.from_arrays(codes, found) if pa.types.is_string(found.type) else found.take(codes)


def judge_table(delivered: pa.Table, judge: Judge) -> pa.Table:
    """The rows by person and time, with their typed values, `failed_rules`, `warned_rules` and `fate`.

    `delivered` has the columns of `reading.prepare_rows`. The typed columns have the codebook's names, beside the
    delivered text in `<column>__raw`. A person's latest row that breaks no rule is accepted, the earlier ones are
    superseded (`duplicate`).
    """
    keys = ["person_id", *([judge.answered_at] if judge.answered_at else []), "eligible"]
    order = pc.sort_indices(delivered, [(key, "ascending") for key in keys])
    people = delivered["person_id"].take(order).combine_chunks()
    raw = delivered.select([name + RAW for name in judge.replicates]).take(order)
    replicates = {name: _read_weights(raw[name + RAW]) for name in judge.replicates}
    columns = _read_columns(delivered.drop_columns(raw.column_names), order.to_numpy(), judge)
    if replicates:
        columns[helper(REPLICATES)] = _encode_flags(_are_weights(replicates.values()), np.zeros(len(people), bool))
    known_people = _encode_flags(np.ones(len(people), bool), people.is_null().to_numpy(zero_copy_only=False))
    starts = _find_starts(people)
    eligible = columns["eligible"].spread(columns["eligible"].values)
    repeated = _find_repeated([columns[key] for key in keys[1:]], starts)
    judged = {**columns, "person_id": known_people}
    broken = {rule.name: eligible & _break(rule, judged, repeated) for rule in judge.rules}
    failed, warned = ([r.name for r in judge.rules if r.severity == severity] for severity in ("row", "warn"))
    breaks_any = np.any([broken[name] for name in failed], axis=0)
    fates = _decide_fates(eligible, breaks_any, starts if judge.answered_at else None)
    made = {"person_id": people, **{name: column.to_arrow() for name, column in columns.items()}}
    made |= {**dict(zip(raw.column_names, raw.columns, strict=True)), **replicates}
    made |= {"failed_rules": _list(failed, broken), "warned_rules": _list(warned, broken), "fate": fates}
    return pa.table(made)


def _read_columns(delivered: pa.Table, order: NDArray[np.uint64], judge: Judge) -> dict[str, Coded]:
    columns = {name: _encode(delivered[name], order) for name in delivered.column_names if name != "person_id"}
    for name, kind in judge.types.items():
        raw = columns[name + RAW] = _strip(columns[name + RAW])
        if kind == "number":
            columns[name] = _read_numbers(raw)
        elif kind == "text":
            columns[name] = raw
        if kind != "text":
            columns[helper(f"{name}_type")] = _encode_flags(~columns[name].is_null, raw.is_null)
    for name, missing in judge.counts.items():
        number = columns[name]
        whole = (number.values >= 0) & (number.values == np.rint(number.values)) | np.isin(number.values, missing)
        columns[helper(f"{name}_whole")] = _encode_flags(number.spread(whole), number.is_null)
    return columns


def _encode(column: pa.ChunkedArray, order: NDArray[np.uint64]) -> Coded:
    whole = column.combine_chunks().dictionary_encode()
    codes = whole.indices.fill_null(-1).to_numpy(zero_copy_only=False)[order]
    found = whole.dictionary
    if pa.types.is_timestamp(found.type):
        found = found.cast(TIME).cast(pa.int64())
    return Coded(codes, found.to_numpy(zero_copy_only=False))


def _strip(text: Coded) -> Coded:
    """The texts without the blanks around them; null where nothing is left."""
    stripped = [value.strip(" ") for value in text.values]
    place = {value: i for i, value in enumerate(dict.fromkeys(value for value in stripped if value))}
    codes = np.array([place.get(value, -1) for value in stripped] + [-1], np.int32)[text.codes]
    return Coded(codes, np.array([*place], object))


def _encode_flags(flags: Flags, is_null: Flags) -> Coded:
    return Coded(np.where(is_null, -1, flags).astype(np.int32), np.array([False, True]))


def _read_numbers(raw: Coded) -> Coded:
    """The numbers that the texts spell; a text that spells none is null."""
    numbers = np.array([float(text) if READS_NUMBER.match(text) else np.nan for text in raw.values], float)
    # No text spells NaN.
    return Coded(np.where(raw.spread(np.isnan(numbers)), -1, raw.codes).astype(np.int32), numbers)


def _read_weights(raw: pa.ChunkedArray) -> pa.Array:
    """The numbers that the texts spell, as `_read_numbers` reads them, but hardly one with Python's help."""
    text = pc.utf8_trim(raw.cast(pa.string()).combine_chunks(), " ")
    plain = pc.match_substring_regex(text, PLAIN_NUMBER).fill_null(False)
    numbers = pc.if_else(plain, text, None).cast(pa.float64())
    odd = pc.and_(pc.invert(plain), text.is_valid())
    spelt = [float(one) if READS_NUMBER.match(one) else None for one in text.filter(odd).to_pylist()]
    return pc.replace_with_mask(numbers, odd, pa.array(spelt, pa.float64()))


def _are_weights(columns: Iterable[pa.Array]) -> Flags:
    """The rows in which every column has a finite number that is not negative."""
    right = [pc.and_(pc.is_finite(one), pc.greater_equal(one, 0)).fill_null(False) for one in columns]
    flags: Flags = np.all([one.to_numpy(zero_copy_only=False) for one in right], axis=0)
    return flags


def _find_starts(people: pa.StringArray) -> Flags:
    """The first row of each person, of rows sorted by person; a row without an id is nobody else's."""
    other = pc.not_equal(people[1:], people[:-1]).fill_null(True)
    return np.append(True, other.to_numpy(zero_copy_only=False))[: len(people)]


def _find_repeated(keys: Sequence[Coded], starts: Flags) -> Flags:
    """The rows that share their person and every key with another one; a null is like no other."""
    changes = starts.copy()
    for key in keys:
        changes[1:] |= key.codes[1:] != key.codes[:-1]
    group = np.cumsum(changes) - 1
    known = ~np.any([key.is_null for key in keys], axis=0)
    repeated: Flags = known & (np.bincount(group)[group] > 1)
    return repeated


def _break(rule: Rule, columns: Mapping[str, Coded], repeated: Flags) -> Flags:
    """The rows that break the rule; a rule about a value says nothing of a missing one."""
    if rule.kind == "unique":
        return repeated
    column = columns[rule.column]
    match rule.kind:
        case "present":
            return column.is_null
        case "in_set":
            return column.spread(~_is_in(column.values, rule.values))
        case "between":
            return column.spread(_is_outside(column.values, rule))
        case "equal":
            assert rule.other
            return _differ(column, columns[rule.other])
        case "true":
            return column.spread(~column.values)


def _is_in(values: NDArray[Any], wanted: Sequence[Any]) -> Flags:
    known = set(wanted)
    return np.fromiter((value in known for value in values.tolist()), bool, len(values))


def _is_outside(values: NDArray[Any], rule: Rule) -> Flags:
    low, high = (_to_number(limit) for limit in (rule.low, rule.high))
    outside = np.zeros(len(values), bool)
    if low is not None:
        outside |= values <= low if rule.above else values < low
    return outside if high is None else outside | (values > high)


def _to_number(limit: float | datetime | None) -> float | int | None:
    return pa.scalar(limit, TIME).value if isinstance(limit, datetime) else limit


def _differ(left: Coded, right: Coded) -> Flags:
    """The rows in which both have a value, and not the same."""
    place = {value: i for i, value in enumerate(left.values.tolist())}
    translated = np.array([place.get(value, len(place)) for value in right.values.tolist()] + [-1])[right.codes]
    differ: Flags = ~left.is_null & ~right.is_null & (left.codes != translated)
    return differ


def _decide_fates(eligible: Flags, failed: Flags, starts: Flags | None) -> pa.DictionaryArray:
    """`starts` where answers have a time: the latest of a person's clean rows supersedes the others."""
    accepted, quarantined, ineligible, duplicate = range(len(FATES))
    fates = np.select([~eligible, failed], [ineligible, quarantined], accepted)
    if starts is not None:
        # Rows that tie have broken `person_repeated`, so among a person's clean rows there is one latest.
        clean = np.flatnonzero(fates == accepted)
        person = np.cumsum(starts)[clean]
        fates[clean[:-1][person[1:] == person[:-1]]] = duplicate
    return pa.DictionaryArray.from_arrays(pa.array(fates.astype(np.int32)), pa.array(FATES))


def _list(names: Sequence[str], broken: Mapping[str, Flags]) -> pa.Array:
    """For each row the names of the rules that it breaks, in the rules' order."""
    rows = len(next(iter(broken.values())))
    pairs = [(np.flatnonzero(broken[name]), place) for place, name in enumerate(names)]
    row = np.concatenate([np.array([], int), *[found for found, _ in pairs]])
    rule = np.repeat(np.arange(len(names)), [len(found) for found, _ in pairs])
    order = np.lexsort((rule, row))
    offsets = np.append(0, np.cumsum(np.bincount(row, minlength=rows)))
    found = pa.array(names, pa.string()).take(pa.array(rule[order], pa.int32()))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), found)
