"""Fit a network to the training people: Petastorm's batches, Adam, averaged weights, a checkpoint an epoch."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, optim
from tqdm import tqdm

from model.amortise import score_latents, simulate_people, widen
from model.arithmetic import make_generator, on_device
from model.checkpoint import Checkpoint, Epoch, load_checkpoint, pack_state, save_checkpoint, unpack_state
from model.errors import ModelError
from model.feed import Batch, TrainingFeed, count_largest_shard, training_batches
from model.inputs import HELD_OUT_FOLD, Inputs
from model.network import ProfileNetwork
from model.plain import PlainNetwork
from model.progress import Progress
from model.ranks import Ranks
from model.spec import FeatureSpec
from model.validation import HiddenCells, cost_people, cost_per_answer, hide_cells

FEWEST_BATCHES = 3  # of an epoch: small samples get smaller batches
SMALLEST_BATCH = 16
DREAMT = 384  # people simulated for each step of the encoder
LOOKING_STEPS = 40  # from one look at the hidden answers to the next
LOOKING_DRAWS = 16  # of each held-out person
LARGEST_GRADIENT = 10.0
FEWEST_STEPS, MOST_STEPS = 200, 2_000  # of a training: small samples need many epochs for them, large ones a few
EPOCHS = 30  # where steps allow
FEWEST_EPOCHS = 2
DESCENT, LAST_RATE = 0.7, 0.1  # rates fall over so much of a training, to so much of the first ones
EQUAL = 5e-4  # nats per hidden answer: less is no difference
PATIENCE = 3  # one part in so many of the epochs, without gain, ends a training
BETAS = (0.9, 0.99)  # of Adam: a training of some hundred steps is over before longer averages mean anything
AVERAGING = 0.99  # of the weights over steps (Polyak & Juditsky 1992): the average is what is judged and kept


Network = TypeVar("Network", ProfileNetwork, PlainNetwork)


@dataclass(frozen=True)
class TrainingSettings:
    """Rates are Adam's at the start; see `find_rate`. `max_epochs` at most.

    `residuals` is the number of residual latents; None chooses it on held-out people. `settle_steps` bring the encoder
    to the finished model's posterior. One thread: a second one gains an eighth on an idle machine, and loses many times
    that on a busy one. `device` is where the steps are reckoned, "cpu" or "cuda". `ranks` processes share every batch.
    """

    seed: int = 1
    weight_column: str | None = "weight"
    max_epochs: int = 300
    batch_size: int = 1024
    encoder_rate: float = 8e-3
    shift_rate: float = 4e-2
    item_rate: float = 6e-2
    samples: int = 8
    residuals: int | None = None
    settle_steps: int = 1_500
    threads: int = 1
    device: str = "cpu"
    ranks: int = 1


@dataclass(frozen=True)
class Task:
    """What one training is made of; `settings.residuals` is a number here, and this process is number `rank`."""

    paths: Sequence[Path]
    spec: FeatureSpec
    settings: TrainingSettings
    inputs: Inputs
    files: list[str]  # their sha256
    rank: int = 0

    @property
    def ranks(self) -> Ranks:
        return Ranks(self.rank, self.settings.ranks)

    @property
    def columns(self) -> list[str]:
        """That the feed reads."""
        weight = self.settings.weight_column
        return [*self.spec.columns, "fold"] + ([weight] if weight else [])

    @property
    def rows(self) -> int:
        """Of an epoch, the held-out people's among them."""
        return self.inputs.rows + self.inputs.held_out_rows

    @property
    def batch_size(self) -> int:
        """Rows of a step that a rank is fed."""
        of_all = min(self.settings.batch_size, max(SMALLEST_BATCH, math.ceil(self.rows / FEWEST_BATCHES)))
        return math.ceil(of_all / self.settings.ranks)

    @cached_property
    def batches(self) -> int:
        """Steps of an epoch: as many as the largest shard has batches."""
        ranks = self.settings.ranks
        rows = self.rows if ranks == 1 else count_largest_shard(list(map(str, self.paths)), self.columns, ranks)
        return math.ceil(rows / self.batch_size)

    @property
    def latents(self) -> int:
        return len(self.spec.traits) + (self.settings.residuals or 0)

    @property
    def epochs(self) -> int:
        steps = min(MOST_STEPS, widen(self.latents) * max(FEWEST_STEPS, EPOCHS * self.batches))
        return min(self.settings.max_epochs, max(FEWEST_EPOCHS, math.ceil(steps / self.batches)))

    def looks(self, epoch: int) -> bool:
        """Whether hidden answers are looked at, and a checkpoint is written, after so many epochs."""
        return epoch == self.epochs or epoch % math.ceil(LOOKING_STEPS / self.batches) == 0

    @property
    def fingerprint(self) -> str:
        """What a checkpoint must share with a training to be resumed."""
        parts = [self.spec.to_json(), asdict(self.settings), self.files, torch.__version__]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Fitted(Generic[Network]):
    """The network with its best epoch's weights, and the figures of every epoch."""

    network: Network
    history: list[Epoch]

    @property
    def best_epoch(self) -> int:
        return self.history[find_best(self.history)].epoch

    @property
    def nats_per_answer(self) -> float:
        return self.history[find_best(self.history)].nats_per_answer


def fit(network: Network, task: Task, folder: Path, progress: bool) -> Fitted[Network]:
    """Train a network to the end, or from the checkpoint in `folder` on to the same end.

    The network comes from the processor, and what is returned lies there. Raises ModelError for a loss that is not
    finite, naming epoch and batch; the last good checkpoint stays.
    """
    device = task.settings.device
    cells = hide_cells(task.inputs).to(device)
    with on_device(device):
        fitted = _fit(network.to(device), task, cells, folder, progress)
    fitted.network.cpu()
    return fitted


def _fit(network: Network, task: Task, cells: HiddenCells, folder: Path, progress: bool) -> Fitted[Network]:
    settings = task.settings
    averaged = network.copy()
    optimizer = make_optimizer(network, settings)
    history: list[Epoch] = []
    best: dict[str, Tensor] = {}
    fingerprint = f"{type(network).__name__} {task.fingerprint}"
    if (checkpoint := load_checkpoint(folder, fingerprint)) is not None:
        history, best = checkpoint.history, unpack_state(checkpoint.tensors, network, averaged, optimizer)
    done = history[-1].epoch if history else 0
    names = [str(path) for path in task.paths]
    size, shard = task.batch_size, task.ranks.shard
    heard = Progress(f"training, {network.latents} latents", task.epochs * task.batches)
    with (
        training_batches(
            names, task.columns, batch_size=size, seed=settings.seed, shard=shard, first_epoch=done
        ) as feed,
        # None: no bar where standard error is no terminal.
        tqdm(
            total=task.epochs,
            initial=done,
            desc=f"training, {network.latents} latents",
            unit="epoch",
            disable=None if progress else True,
        ) as bar,
    ):
        while not is_done(history, task.epochs):
            training_bound = _run_epoch(network, averaged, optimizer, feed, task, done, heard)
            done += 1
            bar.update()
            if not task.looks(done):
                continue
            history = [*history, Epoch(done, training_bound, task.ranks.agree(_measure(averaged, cells, done)))]
            if find_best(history) == len(history) - 1:
                best = {name: tensor.clone() for name, tensor in averaged.state_dict().items()}
            if task.rank == 0:
                state = pack_state(network, averaged, best, optimizer)
                save_checkpoint(folder, Checkpoint(fingerprint, history, state))
            bar.set_postfix(nats=f"{history[-1].nats_per_answer:.4f}")
    averaged.load_state_dict(best)
    return Fitted(averaged.eval(), history)


def _measure(network: ProfileNetwork | PlainNetwork, cells: HiddenCells, epoch: int) -> float:
    cost = cost_per_answer(cost_people(network, cells, LOOKING_DRAWS), cells)
    if not math.isfinite(cost):
        raise ModelError(
            f"Training stopped: after epoch {epoch} the likelihood of the held-out people is not a number. "
            "The last good checkpoint is kept; lower the learning rates."
        )
    return cost


def _run_epoch(
    network: Network,
    averaged: Network,
    optimizer: optim.Optimizer,
    feed: TrainingFeed,
    task: Task,
    epoch: int,
    heard: Progress,
) -> float:
    """One pass over the training people; returns their mean bound. `epoch` counts from 0."""
    generator = make_generator((task.settings.seed * 1_000_003 + epoch) * task.settings.ranks + task.rank)
    total, people = 0.0, 0
    for number, batch in enumerate(task.ranks.pad(feed, task.batches)):
        done = (epoch + number / task.batches) / task.epochs
        heard.tell(epoch * task.batches + number, epoch=epoch + 1)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * find_rate(done)
        loss, count = take_step(network, optimizer, batch, task, generator)
        if not math.isfinite(loss):
            raise ModelError(
                f"Training stopped: the loss is not a number in epoch {epoch + 1}, batch {number + 1}. "
                "The last good checkpoint is kept; lower the learning rates."
            )
        if count:
            _average(averaged, network, step=epoch * task.batches + number)
        total -= loss * count
        people += count
    return total / people


def take_step(
    network: Network, optimizer: optim.Optimizer, batch: Batch | None, task: Task, generator: torch.Generator
) -> tuple[float, int]:
    """One step on the training people of all ranks' batches; returns minus their mean bound, and how many they are.

    Nothing is learned from a loss that is not finite, nor from batches of held-out people alone.
    """
    optimizer.zero_grad()
    mine, people = 0.0, 0
    if batch is not None:
        categories, weights = _take_training_people(batch, network, task.settings, task.inputs)
        people = len(categories)
    if people:
        loss, objective = _find_loss(network, categories, weights, task, generator)
        mine = loss.item()
        if math.isfinite(mine):
            objective.backward()  # type: ignore[no-untyped-call]
    mean, count = task.ranks.combine(network, mine, people)
    if count and math.isfinite(mean):
        torch.nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
        optimizer.step()
    return mean, count


def _find_loss(
    network: ProfileNetwork | PlainNetwork, categories: Tensor, weights: Tensor, task: Task, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Minus the mean bound, and what is minimised."""
    if isinstance(network, PlainNetwork):
        loss = network.loss(categories, weights, generator)
        return loss, loss
    # Half of the draws mirror the others: the bound and its gradient are less noisy for it.
    noise = torch.randn((task.settings.samples // 2, len(categories), network.latents), generator=generator)
    loss = network.loss(categories, weights, torch.cat([noise, -noise]))
    count = math.ceil(DREAMT * widen(network.latents) / task.settings.ranks)
    dreamt, answers = simulate_people(network, categories >= 0, count, generator)
    dreaming = score_latents(network, dreamt, answers).mean()
    penalty = network.shift.penalty() / task.inputs.rows if network.shift is not None else 0.0
    return loss, loss + penalty - dreaming


@torch.no_grad()
def _average(averaged: Network, network: Network, step: int) -> None:
    """Move the average towards the weights, at first quickly, so that the start is soon forgotten."""
    share = 1 - min(AVERAGING, (step + 1) / (step + 10))
    torch._foreach_lerp_(list(averaged.parameters()), list(network.parameters()), share)


def find_rate(done: float) -> float:
    """Of the first rate, after a share `done` of the training: half a cosine, then a last part at a low rate."""
    return LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, done / DESCENT)))


def _take_training_people(
    batch: Batch, network: ProfileNetwork | PlainNetwork, settings: TrainingSettings, inputs: Inputs
) -> tuple[Tensor, Tensor]:
    """Categories (rows, items) and weights (rows, mean 1 over all of them) of a batch's people outside fold 0."""
    training = batch["fold"] != HELD_OUT_FOLD
    codes = torch.stack([batch[key] for key in network.spec.columns], dim=1)[training]
    categories = network.categories(codes.to(settings.device))
    if settings.weight_column is None:
        return categories, torch.ones(len(categories))
    weights = (batch[settings.weight_column][training] / inputs.mean_weight).float()
    return categories, weights.to(settings.device)


def make_optimizer(network: ProfileNetwork | PlainNetwork, settings: TrainingSettings) -> optim.Optimizer:
    """Adam; the few parameters of items and prior learn faster than the perceptrons."""
    slow = widen(network.latents)
    rates = {"encoder": settings.encoder_rate, "decoder": settings.encoder_rate, "shift": settings.shift_rate / slow}
    groups: dict[float, list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(rates.get(name.partition(".")[0], settings.item_rate / slow), []).append(parameter)
    return optim.Adam(
        [{"params": of, "lr": rate, "initial_lr": rate} for rate, of in groups.items()], betas=BETAS, fused=True
    )


def find_best(history: Sequence[Epoch]) -> int:
    """The last epoch that was as good as the best before it: of equals the later one, whose rates were the lower."""
    best, lowest = 0, math.inf
    for number, epoch in enumerate(history):
        lowest = min(lowest, epoch.nats_per_answer)
        if epoch.nats_per_answer <= lowest + EQUAL:
            best = number
    return best


def is_done(history: Sequence[Epoch], epochs: int) -> bool:
    if not history:
        return False
    waited = history[-1].epoch - history[find_best(history)].epoch
    return history[-1].epoch >= epochs or waited >= max(2, math.ceil(epochs / PATIENCE))
