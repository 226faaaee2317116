"""Training under differential privacy: what one person can do to a step, what it costs, what is given up."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from opacus.accountants import RDPAccountant

from model import private_fitting
from model.errors import ModelError
from model.fitting import TrainingSettings
from model.network import ProfileNetwork
from model.private_fitting import Privacy, find_gradients, find_noise, fit_privately
from model.private_training import check_people, train_privately
from model.registry import load_model, save_model
from tests.model.simulation import make_spec, simulate, write_features

PRIVACY = Privacy(epsilon=3.0, delta=1e-6, clip=2.0, weight=1.0)
QUICK = TrainingSettings(settle_steps=20)


def start(people: int = 60) -> tuple[ProfileNetwork, dict[str, torch.Tensor], torch.Tensor]:
    spec = make_spec((3, 3))
    torch.manual_seed(1)
    network = ProfileNetwork(spec)
    learning = {name: p for name, p in network.named_parameters() if p.requires_grad and "encoder" not in name}
    return network, learning, network.categories(torch.from_numpy(simulate(spec, people)[0]))


def test_people_s_gradients_add_up_to_the_ordinary_one():
    network, learning, categories = start()
    weights = torch.linspace(0.2, 3.0, len(categories))
    found = find_gradients(network, learning, categories, weights, 4, torch.Generator().manual_seed(2))
    half = torch.randn((2, len(categories), network.latents), generator=torch.Generator().manual_seed(2))
    noise = torch.cat([half, -half])
    with torch.no_grad():
        posterior = network.encode(categories)
    (-(weights * network.draw(posterior, categories, noise).bound()).sum()).backward()
    for name, parameter in learning.items():
        assert torch.allclose(found[name].sum(dim=0), parameter.grad, rtol=1e-3, atol=1e-4), name


def test_a_gradient_that_is_no_number_counts_as_none():
    network, learning, categories = start()
    weights = torch.ones(len(categories))
    weights[3] = torch.inf
    found = find_gradients(network, learning, categories, weights, 4, torch.Generator().manual_seed(2))
    assert all(part.isfinite().all() and not part[3].any() for part in found.values())
    assert any(part[4].any() for part in found.values())


@pytest.mark.parametrize(("weight", "share"), [(1e4, 1.0), (1e-4, 0.01)])
def test_what_one_person_adds_to_a_step_is_cut_with_the_weight_inside(monkeypatch, weight, share):
    monkeypatch.setattr(private_fitting, "STEPS", 1)
    monkeypatch.setattr(private_fitting, "SAMPLE_RATE", 1.0)
    monkeypatch.setattr(private_fitting, "find_noise", lambda privacy: 0.0)
    network, learning, categories = start(1)
    fit_privately(network, categories, torch.tensor([weight]), QUICK, PRIVACY)
    norm = float(torch.cat([parameter.summed_grad.flatten() for parameter in learning.values()]).norm())
    assert norm == pytest.approx(PRIVACY.clip, rel=1e-3) if share == 1.0 else 0 < norm < share * PRIVACY.clip


def test_a_step_that_nobody_is_in_is_noise_alone(monkeypatch):
    monkeypatch.setattr(private_fitting, "STEPS", 1)
    monkeypatch.setattr(private_fitting, "SAMPLE_RATE", 0.0)
    monkeypatch.setattr(private_fitting, "find_noise", lambda privacy: 1.0)
    network, learning, categories = start()
    before = network.items.first_threshold.detach().clone()
    fit_privately(network, categories, torch.ones(len(categories)), QUICK, PRIVACY)
    assert not any(parameter.summed_grad.any() for parameter in learning.values())
    assert (network.items.first_threshold != before).all()


def test_the_noise_costs_no_more_than_is_said_by_another_accountant():
    multiplier = find_noise(PRIVACY)
    other = RDPAccountant()
    other.history = [(multiplier, private_fitting.SAMPLE_RATE, private_fitting.STEPS)]
    assert PRIVACY.epsilon <= other.get_epsilon(PRIVACY.delta) < 1.15 * PRIVACY.epsilon  # RDP's is the looser bound
    assert find_noise(replace(PRIVACY, epsilon=1.0)) > 2 * multiplier


def test_two_trainings_differ_and_a_model_says_what_it_cost(tmp_path, monkeypatch):
    monkeypatch.setattr(private_fitting, "STEPS", 20)
    spec = make_spec((4,))
    paths = write_features(tmp_path / "features", spec, simulate(spec, 600)[0])
    first, second = (train_privately(paths, spec, QUICK, PRIVACY) for _ in range(2))
    thresholds = [one.network.items.first_threshold for one in (first, second)]
    assert not torch.equal(*thresholds), "noise is drawn by the system"
    save_model(tmp_path / "model", first, "private-1")
    report = load_model(tmp_path / "model").report
    assert report["privacy"] == json.loads(json.dumps(report["privacy"]))
    assert (report["privacy"]["epsilon"], report["privacy"]["steps"], report["link"]) == (3.0, 20, None)
    assert np.isfinite(report["validation"]["nats_per_answer"])
    assert first.norms.profiles["t0"].percentiles[0] < 60 and first.network.residuals == 0


def test_a_person_with_two_rows_is_refused(tmp_path):
    spec = make_spec((4,))
    [path] = write_features(tmp_path / "features", spec, simulate(spec, 100)[0])[:1]
    table = pq.read_table(path)
    pq.write_table(table.take([0, *range(len(table))]), tmp_path / "twice.parquet")
    with pytest.raises(ModelError, match="1 rows are of people who have another one"):
        check_people([tmp_path / "twice.parquet"])
