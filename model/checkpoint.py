"""A training's state after an epoch: tensors in safetensors, the rest in JSON, replaced all at once."""

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor, nn, optim

INDEX = "checkpoint.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Epoch:
    """Figures after so many epochs: bound per training person, cost per hidden answer, in nats."""

    epoch: int
    training_bound: float
    nats_per_answer: float


@dataclass(frozen=True)
class Checkpoint:
    """`fingerprint` names the training that it is of. Random numbers need no state: each epoch has its own seed."""

    fingerprint: str
    history: list[Epoch]
    tensors: dict[str, Tensor]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the tensors under a new name, then the index that names them: a kill in between leaves the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    data = safetensors.torch.save(checkpoint.tensors)
    name = f"checkpoint-{checkpoint.history[-1].epoch:04d}.safetensors"
    replace_file(folder / name, data)
    index = {
        "fingerprint": checkpoint.fingerprint,
        "file": name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "history": [asdict(epoch) for epoch in checkpoint.history],
    }
    replace_file(folder / INDEX, json.dumps(index, indent=1).encode())
    for old in folder.glob("checkpoint-*.safetensors"):
        if old.name != name:
            old.unlink()


def load_checkpoint(folder: Path, fingerprint: str) -> Checkpoint | None:
    """The checkpoint of this very training; None where there is none, or it is damaged or another training's."""
    if not (folder / INDEX).exists():
        return None
    try:
        index = json.loads((folder / INDEX).read_text())
        data = (folder / index["file"]).read_bytes()
        history = [Epoch(**epoch) for epoch in index["history"]]
        sound = hashlib.sha256(data).hexdigest() == index["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        log.warning("The checkpoint is damaged: training starts anew.")
        return None
    if index["fingerprint"] != fingerprint:
        log.warning("The checkpoint is of other features, settings or software: training starts anew.")
        return None
    return Checkpoint(fingerprint, history, safetensors.torch.load(data))


def pack_state(
    network: nn.Module, averaged: nn.Module, best: dict[str, Tensor], optimizer: optim.Optimizer
) -> dict[str, Tensor]:
    """Weights now, their average, the best epoch's average, and Adam's moments, by name."""
    tensors = {f"now.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"averaged.{name}": tensor for name, tensor in averaged.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for position, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{position}.{name}": tensor for name, tensor in state.items()}
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


def unpack_state(
    tensors: dict[str, Tensor], network: nn.Module, averaged: nn.Module, optimizer: optim.Optimizer
) -> dict[str, Tensor]:
    """Put weights, their average and Adam's moments back; returns the best epoch's average."""
    network.load_state_dict(_strip_prefix(tensors, "now."))
    averaged.load_state_dict(_strip_prefix(tensors, "averaged."))
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _strip_prefix(tensors, "adam.").items():
        position, _, moment = name.partition(".")
        state.setdefault(int(position), {})[moment] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return _strip_prefix(tensors, "best.")


def replace_file(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def _strip_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
