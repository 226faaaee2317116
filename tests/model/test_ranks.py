"""Processes that share a training: what each learns is what one would learn from everybody."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from model.feed import count_largest_shard
from model.fitting import Task, TrainingSettings, fit
from model.inputs import survey_inputs
from model.ranks import Ranks
from model.spec import FeatureSpec
from model.training import make_network
from tests.model.simulation import make_spec, simulate, write_features

SPEC = make_spec((4, 2))
SETTINGS = TrainingSettings(max_epochs=12, residuals=0)
RANKS = 2
PEOPLE = 1_201  # so that a row group of one person makes the shards unequal


def find_gradient(people: torch.Tensor) -> tuple[nn.Module, float]:
    network = nn.Linear(3, 1)
    nn.init.constant_(network.weight, 0.5)
    nn.init.constant_(network.bias, 0.1)
    if not len(people):
        return network, 0.0
    loss = network(people).square().mean()
    loss.backward()
    return network, loss.item()


def draw_people() -> torch.Tensor:
    return torch.randn((10, 3), generator=torch.Generator().manual_seed(1))


def make_task(paths: list[Path], spec: FeatureSpec, settings: TrainingSettings, rank: int = 0) -> Task:
    return Task(paths, spec, settings, survey_inputs(paths, spec, "weight"), [], rank)


def run_rank(rank: int, folder: Path, paths: list[Path]) -> None:
    """Some gradients and a whole training, as one of two; what came of them is left in the folder."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS)
    ranks, people = Ranks(rank, RANKS), draw_people()
    found = []
    for shares in ((people[:7], people[7:]), (people, people[:0]), (people[:0], people[:0])):
        network, loss = find_gradient(shares[rank])
        mean, count = ranks.combine(network, loss, len(shares[rank]))
        found.append((network.weight.grad, network.bias.grad, mean, count))
    unequal = ranks.combine(find_gradient(people)[0], float("nan") if rank else 1.0, 5)
    task = make_task(paths, SPEC, replace(SETTINGS, ranks=RANKS), rank)
    fitted = fit(make_network(task), task, folder / "checkpoints", progress=False)
    torch.save(
        {
            "found": found,
            "unequal": unequal,
            "agreed": ranks.agree(float(rank + 1)),
            "weights": fitted.network.state_dict(),
            "history": fitted.history,
        },
        folder / f"rank-{rank}",
    )
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    weights = np.random.default_rng(3).uniform(0.2, 4.0, PEOPLE)
    return write_features(tmp_path_factory.mktemp("features"), SPEC, simulate(SPEC, PEOPLE)[0], weights)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, paths: list[Path]) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(run_rank, (folder, paths), nprocs=RANKS)
    return [torch.load(folder / f"rank-{rank}", weights_only=False) for rank in range(RANKS)]


def test_gradients_are_those_of_the_mean_over_everybody(ended: list[dict]) -> None:
    network, loss = find_gradient(draw_people())
    for rank in ended:
        for weight, bias, mean, count in rank["found"][:2]:
            assert count == 10 and mean == pytest.approx(loss, rel=1e-6)
            assert torch.allclose(weight, network.weight.grad) and torch.allclose(bias, network.bias.grad)
        weight, bias, mean, count = rank["found"][2]
        assert (weight.abs().sum(), bias.abs().sum(), mean, count) == (0, 0, 0, 0), "nobody to learn from"


def test_a_loss_that_is_not_finite_is_everybodys(ended: list[dict]) -> None:
    assert all(np.isnan(rank["unequal"][0]) and rank["unequal"][1] == 10 for rank in ended)
    assert [rank["agreed"] for rank in ended] == [1.0, 1.0]


def test_every_rank_ends_with_the_same_bits_and_one_process_likelihood(
    ended: list[dict], paths: list[Path], tmp_path: Path
) -> None:
    first, second = ended
    assert first["history"] == second["history"]
    assert all(torch.equal(tensor, second["weights"][name]) for name, tensor in first["weights"].items())
    task = make_task(paths, SPEC, SETTINGS)
    alone = fit(make_network(task), task, tmp_path, progress=False)
    assert min(e.nats_per_answer for e in first["history"]) == pytest.approx(alone.nats_per_answer, abs=0.005)


def test_an_epoch_has_as_many_steps_as_the_largest_shard(paths: list[Path]) -> None:
    files = [str(path) for path in paths]
    # Row groups of 300, 300 and 1 people, then of 300 and 300.
    assert count_largest_shard(files, ["fold"], 1) == PEOPLE
    assert count_largest_shard(files, ["fold"], 2) == 601
    task = make_task(paths, SPEC, replace(SETTINGS, ranks=2))
    assert (task.batch_size, task.batches) == (201, 3)
    assert list(Ranks(0, 2).pad([1, 2], 3)) == [1, 2, None]
    assert list(Ranks().pad([1, 2], 3)) == [1, 2]
