import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Normal, kl_divergence

from model.fitting import Fitted, Task, TrainingSettings, fit
from model.inputs import survey_inputs
from model.plain import LATENTS, PlainNetwork
from model.validation import cost_by_margins, cost_per_answer, hide_cells
from tests.model.simulation import make_spec, simulate, write_features

SPEC = make_spec((5, 4), loose=1)
SETTINGS = TrainingSettings(batch_size=64, encoder_rate=4e-3)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    paths = write_features(tmp_path_factory.mktemp("plain"), SPEC, simulate(SPEC, 2000)[0])
    return Task(paths, SPEC, SETTINGS, survey_inputs(paths, SPEC, "weight"), [])


def start(seed: int = 1) -> PlainNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PlainNetwork(SPEC)


def train(task: Task, folder: Path) -> Fitted[PlainNetwork]:
    return fit(start(), task, folder, progress=False)


@pytest.fixture(scope="module")
def fitted(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Fitted[PlainNetwork]:
    return train(task, tmp_path_factory.mktemp("checkpoints"))


def test_bound_is_reconstruction_less_divergence():
    network = start()
    categories = network.categories(torch.from_numpy(simulate(SPEC, 50)[0]))
    posterior = network.posterior(categories)
    noise = torch.randn((50, LATENTS), generator=torch.Generator().manual_seed(1))
    sds = posterior.factor.diagonal(dim1=1, dim2=2)
    divergence = kl_divergence(Normal(posterior.mean, sds), Normal(0.0, 1.0)).sum(dim=1)
    logs = network.decode(posterior.mean + sds * noise)
    expected = -divergence
    for position, item in enumerate(SPEC.items):
        answers = categories[:, position]
        found = Categorical(logits=logs[:, position, : len(item.levels)]).log_prob(answers.clamp(min=0))
        expected = expected + torch.where(answers >= 0, found, 0.0)
    torch.testing.assert_close(network.bound(posterior, categories, noise), expected)


def test_probabilities_sum_to_one_and_end_with_the_items_levels():
    probability = start().predict(torch.full((3, len(SPEC.items)), -1))
    torch.testing.assert_close(probability.sum(dim=-1), torch.ones(3, len(SPEC.items)))
    assert probability[:, -1, 3:].max() == 0, "the loose item has three levels"


def test_it_foretells_hidden_answers_better_than_margins(fitted, task):
    cells = hide_cells(task.inputs)
    margins = cost_per_answer(cost_by_margins(cells, task.inputs, SPEC), cells)
    assert fitted.nats_per_answer < margins - 0.03
    assert math.isfinite(fitted.nats_per_answer)


def test_same_seed_same_bits(fitted, task, tmp_path):
    again = train(task, tmp_path)
    assert again.history == fitted.history
    for name, tensor in again.network.state_dict().items():
        assert np.array_equal(tensor.numpy(), fitted.network.state_dict()[name].numpy())
