"""Stage 3: the model in force, or a new one where none is, where a retrain is due, or where one is forced."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from expectations.codebook import Codebook
from jobs.errors import StageError
from jobs.job import Job
from jobs.lake import Lake, StageRecord
from jobs.preprocess import score_levels
from jobs.promotions import find_model
from model.errors import ModelError
from model.registry import ARCHITECTURE, FORMAT_VERSION, Model, load_model, promotable, save_model
from model.spec import FeatureSpec, ItemSpec, ScaleSpec, TraitSpec
from model.training import TrainingSettings, train
from model.validation import judge_network

SETTINGS = TrainingSettings()


def run(job: Job) -> StageRecord:
    """Raises StageError where the first model cannot be used, ModelError where the training fails."""
    inputs = job.night.digests("preprocess")
    champion = find_model(job.lake, job.run_date)
    if champion and not job.force_retrain and not is_due(job.lake, job.run_date, job.book):
        return StageRecord("train", inputs, details=_keep(job, champion))
    features = job.night.paths("preprocess", "features")
    model = _train_once(job, features)
    rival = _measure_champion(job, champion, model, features)
    reasons = promotable(model.report, rival)
    if reasons and rival is not None:
        refused = {"model_version": model.model_version, "reasons": reasons}
        return StageRecord("train", inputs, details={**_keep(job, champion or {}), "refused": refused})
    if reasons and reasons[0].startswith("not a number"):
        raise StageError(f"the first model cannot be used ({reasons[0]}): look at the features' answers")
    return StageRecord("train", inputs, details=_describe(job, model, reasons))


def _keep(job: Job, champion: dict[str, Any]) -> dict[str, Any]:
    """The champion's details for another night; on the night that promoted it they stay as they were."""
    details = {key: value for key, value in champion.items() if key != "refused"}
    return {**details, "promoted": champion["trained_on"] == job.run_date.isoformat()}


def is_due(lake: Lake, run_date: date, book: Codebook) -> bool:
    """Whether a training is due: no model in force, one that is too old, or one made for other answers."""
    champion = find_model(lake, run_date)
    if champion is None:
        return True
    age = run_date - date.fromisoformat(champion["trained_on"])
    try:
        spec = load_model(lake.root / champion["folder"]).spec
    except ModelError:
        return True  # lost, damaged or of an older format: it cannot score either
    return age.days >= book.retrain_days or spec != build_spec(book)


def _train_once(job: Job, features: Sequence[Path]) -> Model:
    """Trains under a name made of all that goes in, so that a training done before is found and not done again."""
    spec = build_spec(job.book)
    made_by = [FORMAT_VERSION, ARCHITECTURE, torch.__version__]
    content = json.dumps([spec.to_json(), asdict(SETTINGS), hash_answers(features, spec), made_by], sort_keys=True)
    version = f"{job.run_date.isoformat()}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    folder = job.lake.restricted / "models" / version
    checkpoints = folder.with_name(f".{version}.checkpoints")
    if not folder.exists():
        save_model(folder, train(features, spec, SETTINGS, checkpoints), version)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return load_model(folder)


def hash_answers(features: Sequence[Path], spec: FeatureSpec) -> str:
    """The sha256 of what a training reads. Those of files will not do: their footers differ from writing to writing."""
    digest = hashlib.sha256()
    columns = [*spec.columns, "fold", "weight"]
    for path in features:
        for batch in pq.ParquetFile(path).iter_batches(columns=columns):
            for name in columns:
                digest.update(batch.column(name).to_numpy().tobytes())
    return digest.hexdigest()


def _measure_champion(
    job: Job, champion: dict[str, Any] | None, model: Model, features: Sequence[Path]
) -> float | None:
    """The champion's nats per answer on the new model's held-out people; None where it cannot read them."""
    if champion is None:
        return None
    try:
        old = load_model(job.lake.root / champion["folder"])
    except ModelError:
        return None
    if old.spec != model.spec:
        return None
    return judge_network(old.network, features, SETTINGS.weight_column).nats_per_answer


def _describe(job: Job, model: Model, shortcomings: list[str]) -> dict[str, Any]:
    figures = model.report["validation"]
    return {
        "model_version": model.model_version,
        "folder": f"restricted/models/{model.model_version}",
        "trained_on": job.run_date.isoformat(),
        "promoted": True,
        "shortcomings": shortcomings,
        "validation": {
            "nats_per_answer": figures["nats_per_answer"],
            "margins_nats_per_answer": figures["margins_per_answer"],
        },
    }


def build_spec(book: Codebook) -> FeatureSpec:
    """What the model needs to know of the codebook."""
    scales = {scale.key: scale for scale in book.scales}
    trait_of = {key: trait for trait in book.traits for key in scales[trait.scale].items}
    items = []
    for item in book.items:
        trait = trait_of.get(item.key)
        flipped = trait is not None and scales[trait.scale].positive
        items.append(ItemSpec(item.key, score_levels(item), trait.key if trait else None, flipped))
    return FeatureSpec(
        items=tuple(items),
        traits=tuple(TraitSpec(trait.key, scales[trait.scale].items) for trait in book.traits),
        scales=tuple(ScaleSpec(scale.key, scale.items, scale.multiply, scale.cut) for scale in book.scales),
        codebook=book.codebook,
        codebook_version=str(book.version),
    )
