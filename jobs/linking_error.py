"""What the models' link adds to the variance of a change in a trait, where two nights were scored by two models."""

from collections.abc import Mapping
from typing import Any


def linking_variance(trait: str, now: Mapping[str, Any], then: Mapping[str, Any]) -> float | None:
    """In squared reference sds, of a mean's change between two nights' models, given by the details of their `train`.

    Each model's linking error is to the reference population of its series, whose first model has none; errors of two
    models are independent (as in PISA's trends). 0 for one model, None where the units differ: another series, or a
    trait without a link.
    """
    if now["series"] != then["series"]:
        return None
    if now["model_version"] == then["model_version"]:
        return 0.0
    errors = [_find_error(trait, model) for model in (now, then)]
    return None if None in errors else sum(error**2 for error in errors if error is not None)


def _find_error(trait: str, model: Mapping[str, Any]) -> float | None:
    if model["model_version"] == model["series"]:
        return 0.0
    found = model["linking_errors"].get(trait)
    return None if found is None else float(found)
