"""Keep the profiles of people whose answers are those of an earlier night: the network's work follows what changed.

A profile follows from the answers alone, bit for bit and in any company (model/scoring.py). So a profile may be copied
from whoever gave the same answers to the same model, and the pseudonym only says where to look for them.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from model.inputs import open_parquet, read_codes
from model.rewriting import Piece, read_people
from model.spec import PERSON, FeatureSpec

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Earlier:
    """Row groups of an earlier night's features, and of its profiles: from row `skip` on those of the same people, in
    the same order."""

    features: list[Piece]
    profiles: list[Piece]
    skip: int


@dataclass(frozen=True)
class Kept:
    """Profiles that were there or are new, in no order, and the place in them of every person, in theirs."""

    profiles: pa.Table
    places: Rows
    kept: int


def keep_profiles(
    score: Callable[[pa.Table], pa.Table],
    columns: pa.Schema,
    spec: FeatureSpec,
    pieces: Sequence[Piece],
    earlier: Earlier,
) -> Kept:
    """Profiles, of `columns`, of the pieces' people; `score` makes those of whom the earlier night cannot tell.

    Raises ModelError for columns that do not fit.
    """
    [now] = read_people(pieces, spec, [PERSON], sys.maxsize)
    [then] = read_people(earlier.features, spec, [PERSON], sys.maxsize)
    made = _read_profiles(earlier, [PERSON, *columns.names], then.num_rows)
    # Whoever has put a night's files together anew may have moved its people: then nobody is found.
    moved = not made.column(PERSON).equals(then.column(PERSON))
    places = np.full(now.num_rows, -1) if moved else _find_answers(now, then, spec)
    new = places < 0
    places[new] = then.num_rows + np.arange(new.sum())
    scored = score(now.filter(pa.array(new))).select(columns.names)
    profiles = pa.concat_tables([made.select(columns.names).cast(columns), scored]).combine_chunks()
    return Kept(profiles, places, int((~new).sum()))


def _find_answers(now: pa.Table, then: pa.Table, spec: FeatureSpec) -> Rows:
    """The place `then` of everybody of `now` who gave the same answers, -1 for the others."""
    found = pc.index_in(now.column(PERSON), value_set=then.column(PERSON))
    places: Rows = pc.fill_null(found, -1).to_numpy().astype(np.int64)
    there = np.flatnonzero(places >= 0)
    same = (read_codes(now, spec)[there] == read_codes(then, spec)[places[there]]).all(axis=1)
    places[there[~same]] = -1
    return places


def _read_profiles(earlier: Earlier, names: Sequence[str], rows: int) -> pa.Table:
    parts = []
    for piece in earlier.profiles:
        with open_parquet(piece.path) as file:
            parts.append(file.read_row_groups(list(piece.row_groups or ()), columns=names, use_threads=False))
    return pa.concat_tables(parts).slice(earlier.skip, rows).select(names)
