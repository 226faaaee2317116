"""An extract's columns as levels that can be drawn: a code as delivered, no value, or a histogram of numbers.

Whatever fewer than SMALLEST people have is never a level. Shapes: N people, D drawn ones.
"""

import math
from collections.abc import Iterator, Set
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from expectations.codebook import Codebook
from expectations.codebook_parts import Cohort, Covariate
from model.cells import Integers, join_rare
from model.numbers import Floats, Histogram, count_decimals, make_histogram

GROUPS = 8  # of numbers that no cohort cuts
Texts = npt.NDArray[np.object_]  # None where there is no value
Level = str | None | Histogram


@dataclass(frozen=True)
class Column:
    """What people have: `codes` (N) into `levels`."""

    codes: Integers
    levels: tuple[Level, ...]

    def write(self, codes: Integers, random: np.random.Generator) -> Texts:
        """The texts (D) of drawn codes (D)."""
        texts = np.empty(len(codes), dtype=object)
        for code, level in enumerate(self.levels):
            here = codes == code
            if isinstance(level, Histogram):
                texts[here] = [f"{number:.{level.decimals}f}" for number in level.draw(int(here.sum()), random)]
            else:
                texts[here] = level
        return texts


def read_columns(book: Codebook, people: pa.Table) -> dict[str, Column]:
    """The columns of covariates and cohorts, of accepted rows."""
    return dict(_read_columns(book, people))


def _read_columns(book: Codebook, people: pa.Table) -> Iterator[tuple[str, Column]]:
    parts: tuple[Covariate | Cohort, ...] = (*book.covariates, *book.cohorts)
    for name in dict.fromkeys(part.column for part in parts):
        covariates = [part for part in book.covariates if part.column == name]
        cuts = [part for part in book.cohorts if part.column == name and part.breaks]
        if cuts or any(part.is_number for part in covariates):
            missing = {float(code) for part in parts if part.column == name for code in part.missing}
            breaks = sorted({low for part in cuts for low in part.breaks or ()})
            low = max((part.min for part in covariates if part.min is not None), default=-math.inf)
            high = min((part.max for part in covariates if part.max is not None), default=math.inf)
            yield name, cut_numbers(people[name].to_numpy(), breaks, missing, (low, high))
        else:
            yield name, read_codes(people[name])


def read_codes(values: pa.ChunkedArray) -> Column:
    """A column of codes: those of few people become no value, or the commonest where everybody has one."""
    texts = [write_code(value) for value in values.to_pylist()]
    levels = sorted({text for text in texts if text is not None})
    codes = np.array([len(levels) if text is None else levels.index(text) for text in texts], dtype=np.int64)
    empty = len(levels) if None in texts else None
    return Column(join_rare(codes, empty), (*levels, None))


def write_code(value: str | float | None) -> str | None:
    """As extracts have it: a whole number without decimals."""
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else None if value is None else str(value)


def cut_numbers(
    values: Floats,
    breaks: list[float],
    missing: Set[float] = frozenset(),
    span: tuple[float, float] = (-math.inf, math.inf),
) -> Column:
    """Numbers (N, NaN = none) in groups that begin at `breaks`, or in eighths; missing codes, and none, stand apart.

    `span` has the least and the largest number that the codebook allows.
    """
    known = ~np.isnan(values) & ~np.isin(values, sorted(missing))
    if not breaks and known.any():
        breaks = sorted(set(np.quantile(values[known], np.arange(1, GROUPS) / GROUPS)))
    decimals = count_decimals(values[known])
    codes = np.searchsorted(breaks, values, side="right")
    codes[np.isnan(values)] = len(breaks) + 1
    levels: list[Level] = [
        make_histogram(values[known & (codes == group)], decimals, span) if (known & (codes == group)).any() else None
        for group in range(len(breaks) + 1)
    ]
    levels.append(None)
    for code in sorted(missing):
        codes[values == code] = len(levels)
        levels.append(write_code(code))
    empty = len(breaks) + 1 if np.isnan(values).any() else None
    return Column(join_rare(codes, empty), tuple(levels))


def name_groups(book: Codebook, cohort: Cohort, texts: Texts) -> Texts:
    """The group of each person by the texts (D) of the cohort's column; None outside all groups."""
    if cohort.map is not None:
        groups = {str(code): group for code, group in cohort.map.items()}
        return np.array([groups.get(text) for text in texts], dtype=object)
    missing, lows = {float(code) for code in cohort.missing}, cohort.breaks or ()
    numbers = np.array([np.nan if text is None or float(text) in missing else float(text) for text in texts])
    place = np.searchsorted(lows, numbers, side="right") - 1
    place[np.isnan(numbers)] = -1
    return np.array([None, *cohort.labels], dtype=object)[place + 1]


@dataclass(frozen=True)
class Answering:
    """How people leave items out: `classes` (N) all answered, some, none; by class what stands there instead.

    `left_out` (J) are the shares of items left out by who answers some.
    """

    classes: Integers
    left_out: Floats
    instead: tuple[Column, Column]

    def leave_out(
        self, answers: npt.NDArray[np.object_], classes: Integers, random: np.random.Generator
    ) -> npt.NDArray[np.bool_]:
        """Puts what stands there instead into texts of answers (D, J), by their classes (D); returns where (D, J)."""
        left = np.zeros(answers.shape, dtype=bool)
        for number, column in enumerate(self.instead, start=1):
            rows = np.flatnonzero(classes == number)
            if not len(rows):
                continue
            texts = column.write(random.choice(column.codes, len(rows)), random)
            gone = np.ones((len(rows), answers.shape[1]), dtype=bool)
            if number == 1:
                gone = draw_patterns(self.left_out, len(rows), random)
            answers[rows], left[rows] = np.where(gone, texts[:, None], answers[rows]), gone
        return left


def read_answering(book: Codebook, people: pa.Table, codes: npt.NDArray[np.int8]) -> Answering:
    """Of accepted rows and their item codes (N, J), -1 where there is no answer."""
    gone = codes < 0
    classes = np.where(gone.all(axis=1), 2, gone.any(axis=1).astype(np.int64))
    classes = join_rare(classes)
    instead = []
    for number in (1, 2):
        values = [
            people[item.column].filter(pa.array(gone[:, place] & (classes == number)))
            for place, item in enumerate(book.items)
        ]
        instead.append(
            read_codes(pa.chunked_array([chunk for value in values for chunk in value.chunks], pa.float64()))
        )
    some = classes == 1
    left_out = gone[some].mean(axis=0) if some.any() else np.zeros(codes.shape[1])
    return Answering(classes, left_out, (instead[0], instead[1]))


def draw_patterns(shares: Floats, count: int, random: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Which items are left out (count, J), each by its share, but never none and never all."""
    gone = random.random((count, len(shares))) < shares
    while len(wrong := np.flatnonzero(gone.all(axis=1) | ~gone.any(axis=1))):
        gone[wrong] = random.random((len(wrong), len(shares))) < shares
    return gone
