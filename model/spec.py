"""What the model reads: items with their levels and traits, the scales it speaks about, and people's covariates."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from model.errors import ModelError

MISSING = -1
PERSON = "person_id"  # the column of pseudonyms
MAX_LEVELS = 127  # codes are int8


@dataclass(frozen=True)
class ItemSpec:
    """One answer column: int8 codes 0..K-1 after reversal, -1 where there is no answer, never null.

    `levels[code]` is what the answer adds to a scale's total. `flipped` turns the codes round for the
    network, so that a higher trait means more distress for items of a positive scale too.
    """

    key: str
    levels: tuple[int, ...]
    trait: str | None
    flipped: bool


@dataclass(frozen=True)
class TraitSpec:
    key: str
    items: tuple[str, ...]


@dataclass(frozen=True)
class ScaleSpec:
    """A sum of items' scores times `multiply`; it need not be a trait. `cut` is ">=10", "<=50" or None."""

    key: str
    items: tuple[str, ...]
    multiply: float = 1.0
    cut: str | None = None

    @property
    def cut_column(self) -> str:
        """Name of the column with the probability that the total reaches the cut: phq9_ge10_probability."""
        side, total = (self.cut or "")[:2], (self.cut or "")[2:]
        return f"{self.key}_{'ge' if side == '>=' else 'le'}{total}_probability"


@dataclass(frozen=True)
class CovariateSpec:
    """A column that describes people and measures no trait; null where it is not known.

    `kind` is nominal, binary (text, one of `levels`), continuous or count (float64, `levels` empty).
    """

    key: str
    kind: str
    levels: tuple[str, ...] = ()


@dataclass(frozen=True)
class FeatureSpec:
    items: tuple[ItemSpec, ...]
    traits: tuple[TraitSpec, ...]
    scales: tuple[ScaleSpec, ...]
    codebook: str
    codebook_version: str
    covariates: tuple[CovariateSpec, ...] = ()

    def __post_init__(self) -> None:
        problems = list(_find_problems(self))
        if problems:
            raise ModelError(f"The feature spec of codebook '{self.codebook}' is not sound: {'; '.join(problems)}.")

    @property
    def columns(self) -> tuple[str, ...]:
        """The item columns, in the order of the network's inputs."""
        return tuple(item.key for item in self.items)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> FeatureSpec:
        """Raises ModelError where a field is missing, unknown or of another kind."""
        try:
            return FeatureSpec(
                items=tuple(ItemSpec(**{**item, "levels": tuple(item["levels"])}) for item in data["items"]),
                traits=tuple(TraitSpec(**{**trait, "items": tuple(trait["items"])}) for trait in data["traits"]),
                scales=tuple(ScaleSpec(**{**scale, "items": tuple(scale["items"])}) for scale in data["scales"]),
                codebook=data["codebook"],
                codebook_version=data["codebook_version"],
                covariates=tuple(
                    CovariateSpec(**{**part, "levels": tuple(part["levels"])}) for part in data["covariates"]
                ),
            )
        except (KeyError, TypeError) as error:
            raise ModelError(f"The feature spec cannot be read: {error}.") from error

    def check_columns(self, schema: pa.Schema, other_columns: Collection[str] | None = None) -> None:
        """Raise ModelError naming item columns that are missing or not int8.

        With `other_columns`, every further column of the schema must be one of them; what is left over is named
        as extra (an item that the model was not trained on).
        """
        found = {field.name: field.type for field in schema}
        missing = [key for key in self.columns if key not in found]
        retyped = [f"{key} ({found[key]})" for key in self.columns if key in found and found[key] != pa.int8()]
        extra: list[str] = []
        if other_columns is not None:
            extra = sorted(set(found) - set(self.columns) - set(other_columns))
        parts = [
            f"{label}: {', '.join(names)}"
            for label, names in (("missing", missing), ("not int8", retyped), ("unknown to the model", extra))
            if names
        ]
        if parts:
            raise ModelError(
                f"The features do not fit the model of codebook '{self.codebook}' {self.codebook_version}: "
                f"columns {'; '.join(parts)}. Make the features again with the model's codebook, or train a new model."
            )


def compare_specs(model: FeatureSpec, features: FeatureSpec) -> list[str]:
    """Differences that keep a model from scoring features, one sentence each; empty when they fit.

    The codebook's version alone is no difference, nor are covariates: no profile is made from them.
    """
    differences = []
    if model.codebook != features.codebook:
        differences.append(f"codebook: the model has '{model.codebook}', the features '{features.codebook}'")
    for kind, ours, theirs in (
        ("item", model.items, features.items),
        ("trait", model.traits, features.traits),
        ("scale", model.scales, features.scales),
    ):
        differences += _compare_entries(kind, ours, theirs)
    return differences


def _compare_entries(kind: str, ours: Iterable[Any], theirs: Iterable[Any]) -> Iterator[str]:
    mine, other = ({entry.key: asdict(entry) for entry in entries} for entries in (ours, theirs))
    for key in sorted(mine.keys() - other.keys()):
        yield f"{kind} {key}: in the model only"
    for key in sorted(other.keys() - mine.keys()):
        yield f"{kind} {key}: in the features only"
    for key in [key for key in mine if key in other]:
        for name, value in mine[key].items():
            if value != other[key][name]:
                yield f"{kind} {key}: {name} is {value} in the model, {other[key][name]} in the features"


def _find_problems(spec: FeatureSpec) -> Iterator[str]:
    items = {item.key: item for item in spec.items}
    for kind, keys in (
        ("item", [item.key for item in spec.items]),
        ("trait", [trait.key for trait in spec.traits]),
        ("scale", [scale.key for scale in spec.scales]),
        ("covariate", [part.key for part in spec.covariates]),
    ):
        yield from (f"{kind} {key} comes twice" for key in sorted({key for key in keys if keys.count(key) > 1}))
    if not spec.traits:
        yield "it has no trait: a model needs a scale of two items or more"
    for item in spec.items:
        if not 2 <= len(item.levels) <= MAX_LEVELS or len(set(item.levels)) < len(item.levels):
            yield f"item {item.key} needs 2 to {MAX_LEVELS} different levels"
    for trait in spec.traits:
        members = {key for key, item in items.items() if item.trait == trait.key}
        if members != set(trait.items):
            yield f"trait {trait.key} and its items do not name each other: {', '.join(members ^ set(trait.items))}"
        if len(set(trait.items)) < 2:
            yield f"trait {trait.key} has fewer than two items"
    unknown_traits = {item.trait for item in spec.items if item.trait} - {trait.key for trait in spec.traits}
    yield from (f"unknown trait {key}" for key in sorted(unknown_traits))
    for scale in spec.scales:
        unknown = sorted(set(scale.items) - set(items))
        if unknown or not scale.items:
            yield f"scale {scale.key} names unknown items: {', '.join(unknown) or 'it has none'}"
    for part in spec.covariates:
        if part.kind not in ("nominal", "binary", "continuous", "count"):
            yield f"covariate {part.key} is of the unknown kind {part.kind}"
        elif part.kind == "binary" and len(part.levels) != 2:
            yield f"the binary covariate {part.key} needs two levels"
        elif part.kind == "nominal" and len(set(part.levels)) < max(2, len(part.levels)):
            yield f"the nominal covariate {part.key} needs two different levels or more"
