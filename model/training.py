"""Train a profile network on feature files: seeded, resumable, stopped when hidden answers are foretold no better."""

import copy
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, optim
from tqdm import tqdm

from model.amortise import score_latents, settle_encoder, simulate_people
from model.checkpoint import Checkpoint, Epoch, load_checkpoint, pack_state, save_checkpoint, unpack_state
from model.drift import share_answers
from model.errors import ModelError
from model.feed import Batch, TrainingFeed, training_batches
from model.inputs import HELD_OUT_FOLD, Inputs, People, hash_file, read_sample, survey_inputs
from model.likelihood import smooth_margins
from model.linking import link, measure_shifts
from model.network import ProfileNetwork
from model.norms import Norms, make_norms
from model.spec import MISSING, FeatureSpec
from model.threads import fix_threads
from model.unit import PEOPLE, fix_unit, place_population
from model.validation import HiddenCells, cost_people, cost_per_answer, hide_cells, validate

THINNED_PEOPLE = 0.5  # share of a batch's people of whom the encoder sees a part of the answers only
DROPPED_ANSWERS = 0.5  # share of their answers that is dropped
FEWEST_BATCHES = 12  # small samples get smaller batches, so that an epoch is enough steps
SMALLEST_BATCH = 16
LARGEST_GRADIENT = 10.0
LINKED_STEPS = 400  # of a training that goes on from a champion
LINKED_RATE = 0.25  # of the rates of a training from the start
STEPS = 1_800  # that a training may take: what small samples need many epochs for, large ones learn in a few
FEWEST_EPOCHS = 8
PATIENCE = 8  # one part in so many of the epochs, without gain, ends a training
AVERAGING = 0.99  # of the weights over steps (Polyak & Juditsky 1992): the average is what is judged and kept
RESIDUALS = (0, 4)
RESIDUALS_OF_MANY_ITEMS = (0, 4, 8)
MANY_ITEMS = 40
FEWEST_FOR_RESIDUALS = 1_000  # people: fewer do not show what the scales leave
LEAST_GAIN = 0.001  # nats per hidden answer that more residuals must bring


@dataclass(frozen=True)
class TrainingSettings:
    """Rates are Adam's at the start; they fall to zero as a cosine over the epochs, `max_epochs` at most.

    `residuals` is the number of residual latents; None chooses it on held-out people. `settle_steps` bring the encoder
    to the finished model's posterior. One thread: a second one gains an eighth on an idle machine, and loses many times
    that on a busy one.
    """

    seed: int = 1
    weight_column: str | None = "weight"
    max_epochs: int = 120
    batch_size: int = 1024
    encoder_rate: float = 4e-3
    item_rate: float = 2e-2
    samples: int = 8
    residuals: int | None = None
    settle_steps: int = 1_500
    threads: int = 1


@dataclass(frozen=True)
class TrainingResult:
    network: ProfileNetwork
    norms: Norms
    report: dict[str, Any]


def train(
    paths: Sequence[Path],
    spec: FeatureSpec,
    settings: TrainingSettings,
    folder: Path,
    *,
    champion: TrainingResult | None = None,
    progress: bool = True,
) -> TrainingResult:
    """Train on the files' rows outside fold 0, validate on fold 0; `folder` keeps the checkpoints.

    With a `champion` the training goes on from it in its unit: item parameters and residual shifts stay anchored, what
    is learned is where the population stands and the encoder; percentiles stay those of the reference population.
    The report's `link` says whether the items still behave as they did there.

    A training that was killed goes on from its checkpoint and ends with the same bits. Raises ModelError for features
    that do not fit, too few people, and a loss that is not finite (naming epoch and batch; the last good checkpoint
    stays).
    """
    paths = sorted(paths)
    with fix_threads(settings.threads):
        inputs = survey_inputs(paths, spec, settings.weight_column)
        files = [{"name": path.name, "sha256": hash_file(path)} for path in paths]
        counts = (champion.network.residuals,) if champion else count_residuals(spec, settings, inputs.rows)
        start = champion.network if champion else None
        candidates = [
            _fit(
                _Task(paths, spec, replace(settings, residuals=count), inputs, files, start),
                folder / str(count),
                progress,
            )
            for count in counts
        ]
        network, history = _choose(candidates)
        sample = read_sample(paths, spec, settings.weight_column, PEOPLE)
        categories, weights = network.categories(torch.from_numpy(sample.codes)), sample_weights(sample)
        place_population(network, categories, weights)
        if champion is None:
            fix_unit(network)
        settle_encoder(network, inputs.held_out >= 0, settings.seed, settings.settle_steps)
        validation = validate(network, inputs)
        norms = make_norms(network, paths, settings.weight_column)
        shifts = measure_shifts(network, categories, weights)
    reference = champion.report["reference_shifts"] if champion else shifts
    if champion:
        norms = Norms(champion.norms.traits, norms.fits)
    report = {
        "settings": asdict(settings),
        "codebook": spec.codebook,
        "codebook_version": spec.codebook_version,
        "rows": {"training": inputs.rows, "validation": len(inputs.held_out)},
        "files": files,
        "residuals": {
            "chosen": network.residuals,
            "nats_per_answer": {
                str(other.residuals): min(e.nats_per_answer for e in past) for other, past in candidates
            },
        },
        "history": [asdict(epoch) for epoch in history],
        "best_epoch": _find_best(history) + 1,
        "validation": asdict(validation),
        "answers": share_answers(paths, spec, settings.weight_column),
        "shifts": shifts,
        "reference_shifts": reference,
        "link": link(spec, reference, shifts).to_json() if champion else None,
        "torch": torch.__version__,
    }
    return TrainingResult(network, norms, report)


def sample_weights(sample: People) -> Tensor:
    return torch.from_numpy(sample.weights / sample.weights.mean())


def hash_weights(network: ProfileNetwork) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def count_residuals(spec: FeatureSpec, settings: TrainingSettings, rows: int) -> tuple[int, ...]:
    """The numbers of residual latents that are tried, rising."""
    if settings.residuals is not None:
        return (settings.residuals,)
    if rows < FEWEST_FOR_RESIDUALS:
        return (0,)
    return RESIDUALS_OF_MANY_ITEMS if len(spec.items) >= MANY_ITEMS else RESIDUALS


def thin_answers(categories: Tensor, generator: torch.Generator) -> Tensor:
    """Drop half of the answers of half of the people (rows, items).

    The bound then covers the answers that are left, as for a person who skipped the others. Covering the dropped ones
    too would teach the encoder the posterior sd of a complete questionnaire whatever it is shown.
    """
    people = torch.rand((len(categories), 1), generator=generator) < THINNED_PEOPLE
    answers = torch.rand(categories.shape, generator=generator) < DROPPED_ANSWERS
    return categories.masked_fill(people & answers, MISSING)


Fitted = tuple[ProfileNetwork, list[Epoch]]


@dataclass(frozen=True)
class _Task:
    """What one training is made of; `settings.residuals` is a number here."""

    paths: Sequence[Path]
    spec: FeatureSpec
    settings: TrainingSettings
    inputs: Inputs
    files: list[dict[str, str]]
    champion: ProfileNetwork | None = None

    @property
    def batch_size(self) -> int:
        return min(self.settings.batch_size, max(SMALLEST_BATCH, self.inputs.rows // FEWEST_BATCHES))

    @property
    def epochs(self) -> int:
        batches = math.ceil(self.inputs.rows / self.batch_size)
        steps = LINKED_STEPS if self.champion else STEPS
        return min(self.settings.max_epochs, max(FEWEST_EPOCHS, math.ceil(steps / batches)))

    @property
    def fingerprint(self) -> str:
        """What a checkpoint must share with a training to be resumed."""
        shas = [file["sha256"] for file in self.files]
        start = hash_weights(self.champion) if self.champion else None
        parts = [self.spec.to_json(), asdict(self.settings), shas, start, torch.__version__]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _choose(candidates: Sequence[Fitted]) -> Fitted:
    """More residuals only where they foretell hidden answers better."""
    best = candidates[0]
    for candidate in candidates[1:]:
        gain = best[1][_find_best(best[1])].nats_per_answer - candidate[1][_find_best(candidate[1])].nats_per_answer
        best = candidate if gain >= LEAST_GAIN else best
    return best


def _fit(task: _Task, folder: Path, progress: bool) -> Fitted:
    """The network with its best epoch's weights, and the figures of every epoch."""
    settings, inputs = task.settings, task.inputs
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = ProfileNetwork(task.spec, smooth_margins(inputs.counts, task.spec), settings.residuals or 0)
    if task.champion:
        network.load_state_dict(task.champion.state_dict())
        network.anchor()
    averaged = copy.deepcopy(network).requires_grad_(False)
    optimizer = _make_optimizer(network, settings, LINKED_RATE if task.champion else 1.0)
    cells = hide_cells(inputs)
    history: list[Epoch] = []
    best: dict[str, Tensor] = {}
    if (checkpoint := load_checkpoint(folder, task.fingerprint)) is not None:
        history, best = checkpoint.history, unpack_state(checkpoint.tensors, network, averaged, optimizer)
    columns = [*task.spec.columns, "fold"] + ([settings.weight_column] if settings.weight_column else [])
    names = [str(path) for path in task.paths]
    with (
        training_batches(
            names, columns, batch_size=task.batch_size, seed=settings.seed, first_epoch=len(history)
        ) as feed,
        # None: no bar where standard error is no terminal.
        tqdm(
            total=task.epochs,
            initial=len(history),
            desc=f"training, {network.residuals} residuals",
            unit="epoch",
            disable=None if progress else True,
        ) as bar,
    ):
        while not _is_done(history, task.epochs):
            training_bound = _run_epoch(network, averaged, optimizer, feed, task, len(history))
            history = [*history, Epoch(training_bound, _measure(averaged, cells, len(history)))]
            if _find_best(history) == len(history) - 1:
                best = {name: tensor.clone() for name, tensor in averaged.state_dict().items()}
            state = pack_state(network, averaged, best, optimizer)
            save_checkpoint(folder, Checkpoint(task.fingerprint, history, state))
            bar.update()
            bar.set_postfix(nats=f"{history[-1].nats_per_answer:.4f}")
    averaged.load_state_dict(best)
    return averaged.eval(), history


def _measure(network: ProfileNetwork, cells: HiddenCells, epoch: int) -> float:
    cost = cost_per_answer(cost_people(network, cells), cells)
    if not math.isfinite(cost):
        raise ModelError(
            f"Training stopped: in epoch {epoch + 1} the likelihood of the held-out people is not a number. "
            "The checkpoint of the epoch before is kept; lower the learning rates."
        )
    return cost


def _run_epoch(
    network: ProfileNetwork,
    averaged: ProfileNetwork,
    optimizer: optim.Optimizer,
    feed: TrainingFeed,
    task: _Task,
    epoch: int,
) -> float:
    """One pass over the training people; returns their mean bound. `epoch` counts from 0."""
    settings = task.settings
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
    batches = math.ceil(feed.rows / task.batch_size)
    total, people = 0.0, 0
    for number, batch in enumerate(feed):
        done = (epoch + number / batches) / task.epochs
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * 0.5 * (1 + math.cos(math.pi * done))
        categories, weights = _take_training_people(batch, network, settings, task.inputs)
        if not len(categories):
            continue
        seen = thin_answers(categories, generator)
        noise = torch.randn((settings.samples, len(seen), network.latents), generator=generator)
        loss = network.loss(seen, weights, noise)
        if not math.isfinite(loss.item()):
            raise ModelError(
                f"Training stopped: the loss is not a number in epoch {epoch + 1}, batch {number + 1}. "
                "The last good checkpoint is kept; lower the learning rates."
            )
        dreamt, answers = simulate_people(network, seen >= 0, len(seen), generator)
        optimizer.zero_grad()
        (loss - score_latents(network, dreamt, answers).mean()).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        _average(averaged, network, step=epoch * batches + number)
        total -= loss.item() * len(seen)
        people += len(seen)
    return total / people


@torch.no_grad()
def _average(averaged: ProfileNetwork, network: ProfileNetwork, step: int) -> None:
    """Move the average towards the weights, at first quickly, so that the start is soon forgotten."""
    share = 1 - min(AVERAGING, (step + 1) / (step + 10))
    torch._foreach_lerp_(list(averaged.parameters()), list(network.parameters()), share)


def _take_training_people(
    batch: Batch, network: ProfileNetwork, settings: TrainingSettings, inputs: Inputs
) -> tuple[Tensor, Tensor]:
    """Categories (rows, items) and weights (rows, mean 1 over all of them) of a batch's people outside fold 0."""
    training = batch["fold"] != HELD_OUT_FOLD
    categories = network.categories(torch.stack([batch[key] for key in network.spec.columns], dim=1)[training])
    if settings.weight_column is None:
        return categories, torch.ones(len(categories))
    return categories, (batch[settings.weight_column][training] / inputs.mean_weight).float()


def _make_optimizer(network: ProfileNetwork, settings: TrainingSettings, share: float) -> optim.Optimizer:
    """Adam; the few parameters of items and prior learn faster than the perceptrons."""
    learned = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    slow = [parameter for name, parameter in learned if name.startswith(("encoder.", "shift."))]
    fast = [parameter for name, parameter in learned if not name.startswith(("encoder.", "shift."))]
    groups = [(slow, share * settings.encoder_rate), (fast, share * settings.item_rate)]
    return optim.Adam([{"params": group, "lr": rate, "initial_lr": rate} for group, rate in groups], fused=True)


def _find_best(history: Sequence[Epoch]) -> int:
    return min(range(len(history)), key=lambda epoch: history[epoch].nats_per_answer)


def _is_done(history: Sequence[Epoch], epochs: int) -> bool:
    if len(history) >= epochs:
        return True
    return bool(history) and len(history) - 1 - _find_best(history) >= max(2, math.ceil(epochs / PATIENCE))
