"""`mindcensus measure-membership`: how well an attacker tells who a model was trained on, for its card.

It trains dozens of models, and so is no part of a night; see model/shadows.py and model/membership.py.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from expectations.codebook import read_codebook
from jobs.catalog import find_files
from jobs.errors import StageError
from jobs.lake import Lake, StageRecord, check_kept, write_atomically
from jobs.model_card import MEMBERSHIP, write_card
from jobs.provenance import hash_code
from jobs.train import SETTINGS
from jobs.withdrawn import check_withdrawn
from model.membership import Attack, attack
from model.private_fitting import Privacy
from model.registry import load_model
from model.shadows import train_shadows

MODELS = 65  # each the target once, with 64 shadows


def measure_membership(lake: Lake, manifest: Mapping[str, Any]) -> Attack:
    """Attacks models of the kind of the night's one, and writes what came of it into that model's folder and card.

    What was killed goes on where it was. The lake is held while the card is written, and not before: nights go on.
    Raises StageError where the night that the model was trained on is not kept, UsageError where people of it have
    withdrawn, ModelError for a model that is missing or damaged.
    """
    version = manifest["model"]["model_version"]
    night = find_training(lake, version)
    book, _ = read_codebook(str(lake.restricted / "codebooks" / f"{night['codebook']['sha256']}.yaml"))
    check_withdrawn(lake, StageRecord.from_json(night["stages"]["validate"]), night["run_date"])
    features = find_files(lake.root, night, "features")
    folder = lake.root / night["model"]["folder"]
    model = load_model(folder)
    scratch = folder.with_name(f".{version}.shadows-{hash_code()[:12]}")  # goes with the model where that is retired
    privacy = Privacy(**book.training.dp.model_dump()) if book.training.dp else None
    settings = replace(SETTINGS, residuals=model.network.residuals)
    found = attack(train_shadows(features, model.spec, settings, MODELS, scratch, privacy))
    with lake.hold():
        write_atomically(folder / MEMBERSHIP, json.dumps(asdict(found), indent=1) + "\n")
        told = night["model"]
        gate = {"reasons": [], "measures": told["gate"], "series": told["series"], "link_lost": told["link_lost"]}
        write_card(folder, model, book, features, gate)
    shutil.rmtree(scratch)
    return found


def find_training(lake: Lake, version: str) -> dict[str, Any]:
    """The manifest of the night that the model was trained and judged on. Raises StageError where it is not kept."""
    for manifest in lake.issued():
        if manifest["model"]["model_version"] == version and "gate" in manifest["model"]:
            check_kept(manifest)
            return manifest
    raise StageError(f"no published night has trained the model {version}: there are no features to measure it on")
