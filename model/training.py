"""Train a profile network on feature files: seeded, resumable, stopped when the held-out bound no longer rises."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, optim
from tqdm import tqdm

from model.checkpoint import Checkpoint, Epoch, load_checkpoint, pack_state, save_checkpoint, unpack_state
from model.errors import ModelError
from model.feed import Batch, TrainingFeed, training_batches
from model.inputs import HELD_OUT_FOLD, Inputs, hash_file, survey_inputs
from model.likelihood import smooth_margins
from model.network import ProfileNetwork
from model.norms import Norms, make_norms
from model.spec import MISSING, FeatureSpec
from model.threads import fix_threads
from model.validation import compare_margins, measure_bound

THINNED_PEOPLE = 0.5  # share of a batch's people of whom the encoder sees a part of the answers only
DROPPED_ANSWERS = 0.5  # share of their answers that is dropped
FEWEST_BATCHES = 32  # small samples get smaller batches, so that an epoch is enough steps
SMALLEST_BATCH = 16
LARGEST_GRADIENT = 10.0


@dataclass(frozen=True)
class TrainingSettings:
    """Rates are Adam's at the start; they fall to zero as a cosine over `max_epochs`.

    One thread: a second one gains an eighth on an idle machine, and loses many times that on a busy one.
    """

    seed: int = 1
    weight_column: str | None = "weight"
    max_epochs: int = 25
    patience: int = 6
    batch_size: int = 1024
    encoder_rate: float = 4e-3
    item_rate: float = 3e-2
    samples: int = 2
    threads: int = 1


@dataclass(frozen=True)
class TrainingResult:
    network: ProfileNetwork
    norms: Norms
    report: dict[str, Any]


def train(
    paths: Sequence[Path], spec: FeatureSpec, settings: TrainingSettings, folder: Path, *, progress: bool = True
) -> TrainingResult:
    """Train on the files' rows outside fold 0, validate on fold 0; `folder` keeps the checkpoints.

    A training that was killed goes on from its checkpoint and ends with the same bits. Raises ModelError for features
    that do not fit, too few people, and a loss that is not finite (naming epoch and batch; the last good checkpoint
    stays).
    """
    paths = sorted(paths)
    with fix_threads(settings.threads):
        inputs = survey_inputs(paths, spec, settings.weight_column)
        files = [{"name": path.name, "sha256": hash_file(path)} for path in paths]
        network, history = _fit(paths, spec, settings, inputs, folder, _fingerprint(spec, settings, files), progress)
        validation = compare_margins(measure_bound(network, inputs), inputs, spec)
        norms = make_norms(network, paths, settings.weight_column)
    report = {
        "settings": asdict(settings),
        "codebook": spec.codebook,
        "codebook_version": spec.codebook_version,
        "rows": {"training": inputs.rows, "validation": len(inputs.held_out)},
        "files": files,
        "history": [asdict(epoch) for epoch in history],
        "best_epoch": _find_best(history) + 1,
        "validation": asdict(validation),
        "torch": torch.__version__,
    }
    return TrainingResult(network, norms, report)


def thin_answers(categories: Tensor, generator: torch.Generator) -> Tensor:
    """Drop half of the answers of half of the people (rows, items).

    The bound then covers the answers that are left, as for a person who skipped the others. Covering the dropped ones
    too would teach the encoder the posterior sd of a complete questionnaire whatever it is shown.
    """
    people = torch.rand((len(categories), 1), generator=generator) < THINNED_PEOPLE
    answers = torch.rand(categories.shape, generator=generator) < DROPPED_ANSWERS
    return categories.masked_fill(people & answers, MISSING)


def _fit(
    paths: Sequence[Path],
    spec: FeatureSpec,
    settings: TrainingSettings,
    inputs: Inputs,
    folder: Path,
    fingerprint: str,
    progress: bool,
) -> tuple[ProfileNetwork, list[Epoch]]:
    """The network with its best epoch's weights, and the figures of every epoch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = ProfileNetwork(spec, smooth_margins(inputs.counts, spec))
    optimizer = _make_optimizer(network, settings)
    history: list[Epoch] = []
    best: dict[str, Tensor] = {}
    if (checkpoint := load_checkpoint(folder, fingerprint)) is not None:
        history, best = checkpoint.history, unpack_state(checkpoint.tensors, network, optimizer)
    columns = [*spec.columns, "fold"] + ([settings.weight_column] if settings.weight_column else [])
    batch_size = min(settings.batch_size, max(SMALLEST_BATCH, inputs.rows // FEWEST_BATCHES))
    names = [str(path) for path in paths]
    with (
        training_batches(names, columns, batch_size=batch_size, seed=settings.seed, first_epoch=len(history)) as feed,
        # None: no bar where standard error is no terminal.
        tqdm(
            total=settings.max_epochs,
            initial=len(history),
            desc="training",
            unit="epoch",
            disable=None if progress else True,
        ) as bar,
    ):
        while not _is_done(history, settings):
            training_elbo = _run_epoch(network, optimizer, feed, settings, inputs, len(history), batch_size)
            validation_elbo = measure_bound(network, inputs).elbo
            if not math.isfinite(validation_elbo):
                raise ModelError(
                    f"Training stopped: in epoch {len(history) + 1} the bound on the held-out people is not a number. "
                    "The checkpoint of the epoch before is kept; lower the learning rates."
                )
            history = [*history, Epoch(training_elbo, validation_elbo)]
            if _find_best(history) == len(history) - 1:
                best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
            save_checkpoint(folder, Checkpoint(fingerprint, history, pack_state(network, best, optimizer)))
            bar.update()
            bar.set_postfix(bound=f"{validation_elbo:.3f}")
    network.load_state_dict(best)
    return network.eval(), history


def _run_epoch(
    network: ProfileNetwork,
    optimizer: optim.Optimizer,
    feed: TrainingFeed,
    settings: TrainingSettings,
    inputs: Inputs,
    epoch: int,
    batch_size: int,
) -> float:
    """One pass over the training people; returns their mean bound. `epoch` counts from 0."""
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
    batches = math.ceil(feed.rows / batch_size)
    total, people = 0.0, 0
    for number, batch in enumerate(feed):
        done = (epoch + number / batches) / settings.max_epochs
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * 0.5 * (1 + math.cos(math.pi * done))
        categories, weights = _take_training_people(batch, network, settings, inputs)
        if not len(categories):
            continue
        seen = thin_answers(categories, generator)
        noise = torch.randn((settings.samples, len(seen), len(network.spec.traits)), generator=generator)
        elbo = network.loss(seen, weights, noise).elbo
        if not math.isfinite(elbo.item()):
            raise ModelError(
                f"Training stopped: the loss is not a number in epoch {epoch + 1}, batch {number + 1}. "
                "The last good checkpoint is kept; lower the learning rates."
            )
        optimizer.zero_grad()
        (-elbo).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        total += elbo.item() * len(seen)
        people += len(seen)
    return total / people


def _take_training_people(
    batch: Batch, network: ProfileNetwork, settings: TrainingSettings, inputs: Inputs
) -> tuple[Tensor, Tensor]:
    """Categories (rows, items) and weights (rows, mean 1 over all of them) of a batch's people outside fold 0."""
    training = batch["fold"] != HELD_OUT_FOLD
    categories = network.categories(torch.stack([batch[key] for key in network.spec.columns], dim=1)[training])
    if settings.weight_column is None:
        return categories, torch.ones(len(categories))
    return categories, (batch[settings.weight_column][training] / inputs.mean_weight).float()


def _make_optimizer(network: ProfileNetwork, settings: TrainingSettings) -> optim.Optimizer:
    """Adam; the few parameters of items and prior learn faster than the encoder."""
    encoder = list(network.encoder.parameters())
    others = [parameter for name, parameter in network.named_parameters() if not name.startswith("encoder.")]
    groups = [(encoder, settings.encoder_rate), (others, settings.item_rate)]
    return optim.Adam([{"params": group, "lr": rate, "initial_lr": rate} for group, rate in groups], fused=True)


def _find_best(history: Sequence[Epoch]) -> int:
    return max(range(len(history)), key=lambda epoch: history[epoch].validation_elbo)


def _is_done(history: Sequence[Epoch], settings: TrainingSettings) -> bool:
    if len(history) >= settings.max_epochs:
        return True
    return bool(history) and len(history) - 1 - _find_best(history) >= settings.patience


def _fingerprint(spec: FeatureSpec, settings: TrainingSettings, files: list[dict[str, str]]) -> str:
    """What a checkpoint must share with a training to be resumed."""
    parts = [spec.to_json(), asdict(settings), [file["sha256"] for file in files], torch.__version__]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
