"""The names of outcomes, and what each asks for."""

import math
import re
from collections.abc import Collection
from typing import Literal, NamedTuple, Optional

NAME = re.compile(r"(?P<key>[a-z][a-z0-9_]*)_(?P<what>total|mean|ge(?P<ge>\d+)|le(?P<le>\d+)|p(?P<percent>[1-9]\d?))")
PER = "_per_"
SINGLE = "<scale>_total, <scale>_ge<number>, <scale>_le<number>, <scale>_p<percent>, <trait>_mean"


class Outcome(NamedTuple):
    """What is estimated: `source` names a column of the profiles; a proportion compares it with `cut`.

    A quantile is the source's value that the share `level` of the people does not pass. A ratio sets the total of
    itself, without `over`, against that of `over`. People who lack an answer in `also` are left out. A `latent` outcome
    is a trait's mean: it is made of plausible values, and on a scale without a natural zero. `span` has the least and
    the highest value of the source.
    """

    name: str
    kind: Literal["mean", "proportion", "quantile", "ratio"]
    source: str
    side: Literal[">=", "<="] | None = None
    cut: float | None = None
    latent: bool = False
    level: float | None = None
    over: Optional["Outcome"] = None
    also: str | None = None
    span: tuple[float, float] = (0.0, math.inf)

    def base_names(self) -> tuple[str, ...]:
        """The means and proportions that the outcome's figures are made of or stand beside."""
        if self.kind == "quantile":
            return (self.source,)
        return self.part_names() if self.kind == "ratio" else (self.name,)

    def part_names(self) -> tuple[str, str]:
        """The outcomes that a ratio is made of."""
        over = self.over.name if self.over else ""
        return self.name.removesuffix(f"{PER}{over}"), over

    def split_ratio(self) -> tuple["Outcome", "Outcome"]:
        """Numerator and denominator of a ratio, as outcomes of the people who have an answer to both."""
        if self.over is None:
            raise ValueError(f"{self.name} is no ratio")
        top, bottom = f"{self.name}/numerator", f"{self.name}/denominator"
        kind: Literal["mean", "proportion"] = "mean" if self.cut is None else "proportion"
        numerator = self._replace(name=top, kind=kind, over=None, also=self.over.source)
        return numerator, self.over._replace(name=bottom, also=self.source)


def parse_outcome(name: str, scales: Collection[str], traits: Collection[str]) -> Outcome:
    """`phq9_total` (mean of a total), `phq9_ge10`, `who5_le50` (proportions), `phq9_p50` (a quantile),
    `<trait>_mean` (mean of a trait), `phq9_ge10_per_gad7_ge10` (a ratio).

    Raises ValueError where the name says nothing that the codebook knows.
    """
    for place in [match.start() for match in re.finditer(PER, name)]:
        parts = [_parse_single(part, scales, traits) for part in (name[:place], name[place + len(PER) :])]
        if all(part is not None and not part.latent and part.kind in ("mean", "proportion") for part in parts):
            numerator, over = parts
            assert numerator and over
            return numerator._replace(name=name, kind="ratio", over=over)
    if found := _parse_single(name, scales, traits):
        return found
    raise ValueError(f"{name} is neither {SINGLE} nor <outcome>_per_<outcome>")


def _parse_single(name: str, scales: Collection[str], traits: Collection[str]) -> Outcome | None:
    match = NAME.fullmatch(name)
    if match and match["what"] == "mean" and match["key"] in traits:
        return Outcome(name, "mean", name, latent=True)
    if not match or match["what"] == "mean" or match["key"] not in scales:
        return None
    total = f"{match['key']}_total"
    if match["percent"]:
        return Outcome(name, "quantile", total, level=int(match["percent"]) / 100)
    if match["ge"] or match["le"]:
        return Outcome(name, "proportion", total, ">=" if match["ge"] else "<=", int(match["ge"] or match["le"]))
    return Outcome(name, "mean", total)
