"""A model on disk: a folder of plain files, each with its sha256; nothing in it is executed when it is read."""

import hashlib
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from model.errors import ModelError, OutdatedModelError
from model.network import HIDDEN, ProfileNetwork
from model.norms import Norms
from model.spec import FeatureSpec
from model.training import TrainingResult

FORMAT_VERSION = 7
ARCHITECTURE = {"name": "graded-response-vae", "hidden": list(HIDDEN)}
INDEX = "model.json"
WEIGHTS, REFERENCE = "weights.safetensors", "reference.safetensors"
SPEC, REPORT, NORMS = "spec.json", "training_report.json", "norms.json"


@dataclass(frozen=True)
class Model:
    """A model that was read and found whole."""

    model_version: str
    result: TrainingResult

    @property
    def network(self) -> ProfileNetwork:
        return self.result.network

    @property
    def norms(self) -> Norms:
        return self.result.norms

    @property
    def report(self) -> dict[str, Any]:
        return self.result.report

    @property
    def spec(self) -> FeatureSpec:
        return self.network.spec


def save_model(folder: Path, result: TrainingResult, model_version: str) -> None:
    """Write the model beside `folder` and rename it there. Raises ModelError if the folder exists already."""
    if folder.exists():
        raise ModelError(f"{folder} exists already: a model is written once. Choose another folder.")
    files = {
        WEIGHTS: _encode_weights(result.network),
        REFERENCE: _encode_weights(result.reference),
        SPEC: _encode(result.network.spec.to_json()),
        REPORT: _encode(result.report),
        NORMS: _encode(result.norms.to_json()),
    }
    index = {
        "format_version": FORMAT_VERSION,
        "model_version": model_version,
        "architecture": {**ARCHITECTURE, "residuals": result.network.residuals},
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, data in {**files, INDEX: _encode(index)}.items():
        (temporary / name).write_bytes(data)
    temporary.rename(folder)


def load_model(folder: Path) -> Model:
    """Read a model.

    Raises ModelError naming the file that is missing or damaged, OutdatedModelError for a format no longer read.
    """
    index = _decode(folder / INDEX, _read_file(folder / INDEX))
    residuals = _count_residuals(index.get("architecture"))
    if index.get("format_version") != FORMAT_VERSION or residuals is None:
        raise OutdatedModelError(f"{folder / INDEX} is of another format or architecture: train a new model.")
    data = {name: _read_file(folder / name) for name in (WEIGHTS, REFERENCE, SPEC, REPORT, NORMS)}
    for name, content in data.items():
        if hashlib.sha256(content).hexdigest() != index.get("files", {}).get(name):
            raise ModelError(f"{folder / name} is damaged: its sha256 is not the one in {INDEX}. Restore the model.")
    network = ProfileNetwork(FeatureSpec.from_json(_decode(folder / SPEC, data[SPEC])), residuals=residuals)
    reference = network.without_covariates()
    for name, part in ((WEIGHTS, network), (REFERENCE, reference)):
        try:
            part.load_state_dict(safetensors.torch.load(data[name]))
        except (RuntimeError, safetensors.SafetensorError) as error:
            raise ModelError(f"{folder / name} does not hold the weights that {SPEC} asks for.") from error
    result = TrainingResult(
        network=network.eval().requires_grad_(False),
        reference=reference.eval(),
        norms=Norms.from_json(_decode(folder / NORMS, data[NORMS])),
        report=_decode(folder / REPORT, data[REPORT]),
    )
    return Model(index["model_version"], result)


def _count_residuals(architecture: Any) -> int | None:
    """The number of residual latents of an architecture that is ours; None for any other."""
    residuals = architecture.get("residuals") if isinstance(architecture, dict) else None
    sound = type(residuals) is int and residuals >= 0 and architecture == {**ARCHITECTURE, "residuals": residuals}
    return residuals if sound else None


def promotable(report: dict[str, Any]) -> list[str]:
    """Reasons in a training report against its model; empty when there are none."""
    figures = report["validation"]
    if wrong := sorted(name for name, figure in figures.items() if not math.isfinite(figure)):
        return [f"not a number: {', '.join(wrong)}"]
    cost, margins = figures["nats_per_answer"], figures["margins_per_answer"]
    if cost >= margins:
        return [f"{cost:.4f} nats per hidden answer, no better than the items' margins alone ({margins:.4f})"]
    return []


def _encode_weights(network: ProfileNetwork) -> bytes:
    return safetensors.torch.save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})


def _encode(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode()


def _decode(path: Path, data: bytes) -> dict[str, Any]:
    try:
        decoded = json.loads(data)
    except ValueError as error:
        raise ModelError(f"{path} is damaged: it is no JSON. Restore the model.") from error
    if not isinstance(decoded, dict):
        raise ModelError(f"{path} is damaged: it is no JSON object. Restore the model.")
    return decoded


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}. Restore the model.") from error
