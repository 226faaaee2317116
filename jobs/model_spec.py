"""The codebook as the model sees it, and whether a model fits it."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from expectations.codebook import Codebook
from model.errors import ModelError
from model.registry import load_model
from model.spec import CovariateSpec, FeatureSpec, ItemSpec, ScaleSpec, TraitSpec, compare_specs


def build_spec(book: Codebook) -> FeatureSpec:
    """What the model needs to know of the codebook."""
    scales = {scale.key: scale for scale in book.scales}
    trait_of = {key: trait for trait in book.traits for key in scales[trait.scale].items}
    items = []
    for item in book.items:
        trait = trait_of.get(item.key)
        flipped = trait is not None and scales[trait.scale].positive
        items.append(ItemSpec(item.key, item.scores, trait.key if trait else None, flipped))
    cohorts = {cohort.key for cohort in book.cohorts}  # a cohort of that name takes the covariate's column
    covariates = [
        CovariateSpec(part.key, part.kind, tuple(str(level) for level in part.levels))
        for part in book.covariates
        if part.key not in cohorts
    ]
    if book.feedback and (confirmed := book.feedback.confirmed):
        told = set(confirmed.map.values())
        bands = tuple(band for band in scales[confirmed.scale].bands if band in told)
        covariates.append(CovariateSpec(confirmed.key, "nominal", bands))
    return FeatureSpec(
        items=tuple(items),
        traits=tuple(TraitSpec(trait.key, scales[trait.scale].items) for trait in book.traits),
        scales=tuple(ScaleSpec(scale.key, scale.items, scale.multiply, scale.cut) for scale in book.scales),
        codebook=book.codebook,
        codebook_version=str(book.version),
        covariates=tuple(covariates),
    )


def check_model(folder: Path, features: Sequence[Path], book: Codebook) -> None:
    """Raises ModelError where the model is damaged or made for other columns, naming those that differ."""
    spec = load_model(folder).spec
    spec.check_columns(pq.read_schema(features[0]))
    differences = compare_specs(spec, build_spec(book))
    if differences:
        raise ModelError(f"the model {folder.name} does not fit the codebook ({'; '.join(differences)}): retrain it")
