"""Which model was in force from which run date on; it follows from the published manifests."""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from jobs.amendments import read_amendments
from jobs.lake import Lake


def list_promotions(manifests: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The history: a row each time that another model came into force."""
    history: list[dict[str, str]] = []
    for manifest in manifests:
        model = manifest["model"]["model_version"]
        if not history or history[-1]["model_version"] != model:
            history.append({"from_run_date": manifest["run_date"], "model_version": model})
    return history


def find_model(lake: Lake, run_date: date) -> dict[str, Any] | None:
    """The `train` details of the model in force at the date; None in a lake without a night, or if it was retired.

    Before the lake's first night it is that night's model: a model of an earlier night's own would begin a series whose
    unit no other night shares.
    """
    manifests = lake.manifests()
    nights = [manifest for manifest in manifests if manifest["run_date"] <= run_date.isoformat()] or manifests[:1]
    if not nights or nights[-1]["model"]["model_version"] in read_amendments(lake.restricted).models:
        return None
    return dict(nights[-1]["model"])
