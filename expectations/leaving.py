"""Who is counted out before any rule is looked at: people who have not agreed, and people who have withdrawn.

Nothing of their rows goes any further than the count. A worker of Spark imports this, and no more.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from expectations.codebook import Codebook
from expectations.rules import RAW

WITHDRAWN = "withdrawn"  # a row's fate, beside those of `judging`


@dataclass(frozen=True)
class Gone:
    """Rows that were counted out, those of them with a partner in the first file, and rows with an unknown code."""

    rows: int = 0
    matched: int = 0
    unknown: int = 0


@dataclass(frozen=True)
class Door:
    """Whom to let in: the consent's column and codes, and the file of the pseudonyms of those who have withdrawn."""

    column: str | None = None
    agreed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    withdrawn: Path | None = None

    def let_in(self, delivered: pa.Table) -> tuple[pa.Table, Gone]:
        """The rows of those who stay, and what is counted of the others; `delivered` has all rows of its people.

        A person goes with all rows as soon as one of them does not say that they agree. A malformed row says nothing
        of anybody, and stays.
        """
        people = delivered["person_id"].combine_chunks()
        goes = np.zeros(len(people), bool)
        if self.withdrawn is not None:
            goes |= _to_flags(pc.is_in(people, pa.array(self.withdrawn.read_text().split(), pa.string())))
        unknown = 0
        if self.column is not None:
            code = pc.utf8_trim(delivered[self.column + RAW].cast(pa.string()).combine_chunks(), " ")
            whole = ~_to_flags(delivered["malformed"].combine_chunks())
            goes |= whole & ~_to_flags(pc.is_in(code, pa.array(self.agreed, pa.string())))
            known = pa.array([None, "", *self.agreed, *self.refused], pa.string())
            unknown = int((whole & ~_to_flags(pc.is_in(code, known))).sum())
        if not goes.any():
            return delivered, Gone(unknown=unknown)
        goes |= _to_flags(pc.is_in(people, people.filter(pa.array(goes)).drop_null()))
        unmatched = _to_flags(delivered["unmatched"].combine_chunks())
        return delivered.filter(pa.array(~goes)), Gone(int(goes.sum()), int((goes & ~unmatched).sum()), unknown)


def open_door(book: Codebook, withdrawn: Path | None) -> Door:
    consent = book.consent
    if consent is None:
        return Door(withdrawn=withdrawn)
    return Door(consent.column, consent.agreed_texts, consent.refused_texts, withdrawn)


def _to_flags(values: pa.Array) -> NDArray[np.bool_]:
    flags: NDArray[np.bool_] = values.fill_null(False).to_numpy(zero_copy_only=False)
    return flags
