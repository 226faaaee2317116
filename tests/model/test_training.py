import hashlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from model import training
from model.checkpoint import INDEX, Checkpoint, Epoch, load_checkpoint, save_checkpoint
from model.errors import ModelError
from model.fitting import EQUAL, Task, TrainingSettings, find_best, find_rate, is_done, make_optimizer
from model.group_costs import cost_by_scales
from model.inputs import read_sample, survey_inputs
from model.network import ProfileNetwork
from model.registry import save_model
from model.scoring import Scorer
from model.training import TrainingResult, count_residuals, train
from model.validation import validate
from tests.model.simulation import CORRELATION, make_spec, simulate, write_features

SMALL = TrainingSettings(max_epochs=4, residuals=0, settle_steps=20)
PROJECT = Path(__file__).parents[2]


def digest(result: TrainingResult) -> str:
    return hashlib.sha256(safetensors.torch.save(result.network.state_dict())).hexdigest()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Spec and files of 600 people."""
    spec = make_spec((4, 2))
    return spec, write_features(tmp_path_factory.mktemp("small"), spec, simulate(spec, 600)[0])


def test_training_finds_the_traits(trained):
    figures = trained.result.report["validation"]
    assert figures["nats_per_answer"] < figures["margins_per_answer"] - 0.05
    codes, traits = simulate(trained.spec, 1000, seed=5)
    with torch.no_grad():
        network = trained.result.network
        posterior = network.posterior(network.categories(torch.from_numpy(codes)))
        correlation = network.trait_correlations()[0, 1].item()
    assert correlation == pytest.approx(CORRELATION, abs=0.1)
    mean, sd = posterior.mean[:, :2].numpy(), posterior.sd()[:, :2].numpy()
    sums = np.where(codes >= 0, codes, np.nan)
    for position, (columns, sign) in enumerate([(slice(0, 5), 1), (slice(5, 9), -1)]):
        found = np.corrcoef(mean[:, position], traits[:, position])[0, 1]
        assert found > sign * np.corrcoef(np.nanmean(sums[:, columns], axis=1), traits[:, position])[0, 1]
        covered = np.abs(mean - traits)[:, position] < 1.645 * sd[:, position]
        assert 0.87 < covered.mean() < 0.93


def test_report_tells_what_was_done(trained):
    report = json.loads(json.dumps(trained.result.report))
    assert report["rows"] == {"training": 1800, "validation": 200}
    assert report["files"] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(trained.paths)]
    assert report["settings"]["seed"] == 1 and len(report["history"]) <= 40
    costs = {epoch["epoch"]: epoch["nats_per_answer"] for epoch in report["history"]}
    best = costs[report["best_epoch"]]
    assert best <= min(costs.values()) + EQUAL
    assert report["residuals"] == {"chosen": 2, "nats_per_answer": {"2": best}}
    inputs = survey_inputs(trained.paths, trained.spec, "weight")
    assert asdict(validate(trained.result.network, inputs)) == report["validation"]


def test_same_seed_same_bits_other_seed_others(small, tmp_path):
    spec, paths = small
    first = train(paths, spec, SMALL, tmp_path / "a", progress=False)
    torch.rand(5)  # what others draw does not matter
    again = train(paths[::-1], spec, SMALL, tmp_path / "b", progress=False)
    other = train(paths, spec, replace(SMALL, seed=2), tmp_path / "c", progress=False)
    assert digest(first) == digest(again) != digest(other)
    assert first.norms == again.norms and first.report == again.report


def test_the_number_of_threads_outside_changes_nothing_and_is_left_alone(small, tmp_path):
    spec, paths = small
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            settings = replace(SMALL, max_epochs=2, residuals=2)
            results.append(train(paths, spec, settings, tmp_path / str(threads), progress=False))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert digest(results[0]) == digest(results[1]) and results[0].report == results[1].report


@pytest.mark.parametrize("residuals", [0, 2])
def test_killed_training_resumes_to_the_same_bits(residuals, small, tmp_path):
    spec, paths = small
    settings = replace(SMALL, max_epochs=45, residuals=residuals)
    undisturbed = train(paths, spec, settings, tmp_path / "undisturbed", progress=False)
    folder = tmp_path / "killed"
    checkpoints = folder / str(residuals)
    script = (
        "import sys; from pathlib import Path\n"
        "from model.fitting import TrainingSettings; from model.training import train\n"
        "from tests.model.simulation import make_spec\n"
        f"settings = TrainingSettings(max_epochs=45, residuals={residuals}, settle_steps=20)\n"
        "train([Path(p) for p in sys.argv[2:]], make_spec((4, 2)), settings, Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", script, str(folder), *map(str, paths)]
    process = subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            if len(list(checkpoints.glob("checkpoint-00[1-3]?.safetensors"))) and (checkpoints / INDEX).exists():
                break
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    done = len(json.loads((checkpoints / INDEX).read_text())["history"])
    assert 1 <= done < len(undisturbed.report["history"])
    resumed = train(paths, spec, settings, folder, progress=False)
    assert digest(resumed) == digest(undisturbed)
    assert resumed.report == undisturbed.report and resumed.norms == undisturbed.norms


def test_finished_training_is_not_done_again(small, tmp_path):
    spec, paths = small
    first = train(paths, spec, SMALL, tmp_path, progress=False)
    before = (tmp_path / "0" / INDEX).stat().st_mtime_ns
    assert digest(train(paths, spec, SMALL, tmp_path, progress=False)) == digest(first)
    assert (tmp_path / "0" / INDEX).stat().st_mtime_ns == before


@pytest.mark.parametrize(("scale", "chosen"), [(0.0, 0), (3.0, 2)])
def test_residuals_are_taken_where_they_foretell_hidden_answers_better(scale, chosen, tmp_path, monkeypatch):
    """Two pairs of items of different traits share what their traits do not explain."""
    monkeypatch.setattr(training, "RESIDUALS", (0, 2))
    spec = make_spec((4, 4))
    codes, _ = simulate(spec, 1500, missing=0.0)
    if scale:
        shared = np.random.default_rng(5).integers(0, 2, len(codes))[:, None] * np.ones((1, 2))
        codes[:, [0, 4]] = np.where(shared == 1, 3, codes[:, [0, 4]])
    paths = write_features(tmp_path / "f", spec, codes)
    settings = TrainingSettings(settle_steps=10)
    result = train(paths, spec, settings, tmp_path / "c", progress=False)
    costs = result.report["residuals"]["nats_per_answer"]
    assert sorted(costs) == ["0", "2"]
    assert result.report["residuals"]["chosen"] == result.network.residuals == chosen
    if chosen:
        assert costs["2"] < costs["0"] - 0.01


def test_how_many_residuals_are_tried():
    small, large = make_spec((5, 4)), make_spec((20, 20))
    settings = TrainingSettings()
    assert count_residuals(small, settings, 999) == (0,)
    assert count_residuals(small, settings, 1000) == (0, 4)
    assert count_residuals(large, settings, 1000) == (0, 4, 8, 16, 24)
    assert count_residuals(large, replace(settings, residuals=3), 10) == (3,)


def test_numbers_of_residuals_rise_until_one_brings_nothing(small, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "count_residuals", lambda *given: (0, 1, 2, 3, 4))
    monkeypatch.setattr(training, "LEAST_GAIN", 1.0)
    spec, paths = small
    settings = replace(SMALL, residuals=None, max_epochs=1)
    tried = train(paths, spec, settings, tmp_path, progress=False).report["residuals"]
    assert (tried["chosen"], list(tried["nats_per_answer"])) == (0, ["0", "1", "2"])


def test_many_traits_get_more_and_smaller_steps(tmp_path):
    def plan(traits: int, residuals: int, people: int = 600) -> Task:
        spec = make_spec((3,) * traits)
        paths = write_features(tmp_path / f"{traits}-{people}", spec, simulate(spec, people)[0])
        settings = TrainingSettings(residuals=residuals)
        return Task(paths, spec, settings, survey_inputs(paths, spec, None), [])

    few, many = plan(6, 4), plan(16, 4)
    assert few.epochs * few.batches == pytest.approx(200, abs=few.batches)
    assert many.epochs * many.batches == pytest.approx(400, abs=many.batches)
    rates = [
        {group["lr"] for group in make_optimizer(training.make_network(task), task.settings).param_groups}
        for task in (few, many)
    ]
    assert rates == [{8e-3, 4e-2, 6e-2}, {8e-3, 2e-2, 3e-2}]


def test_many_scales_foretell_more_together_than_each_by_itself(tmp_path):
    spec = make_spec((4,) * 12)
    paths = write_features(tmp_path / "f", spec, simulate(spec, 1500)[0])
    settings = TrainingSettings(residuals=0, settle_steps=300)
    found = train(paths, spec, settings, tmp_path / "c", progress=False).report["validation"]
    inputs = survey_inputs(paths, spec, "weight")
    alone = cost_by_scales(inputs, read_sample(paths, spec, "weight", 1500), spec)
    assert found["nats_per_answer"] < alone - 0.02


def test_three_hundred_items_give_finite_profiles(tmp_path):
    spec = make_spec((10,) * 30, cuts=(">=15",) * 30)
    paths = write_features(tmp_path / "f", spec, simulate(spec, 200)[0])
    result = train(paths, spec, replace(SMALL, max_epochs=2), tmp_path / "c", progress=False)
    save_model(tmp_path / "model", result, "model-1")
    profiles = Scorer.load(tmp_path / "model").score(pq.read_table(paths[0]))
    numbers = [column.drop_null().to_numpy() for column in profiles.columns if pa.types.is_float32(column.type)]
    assert len(numbers) >= 30 * 7 and all(np.isfinite(column).all() for column in numbers)


def test_checkpoint_of_another_training_or_damaged_is_set_aside(small, tmp_path, caplog):
    spec, paths = small
    other = train(paths, spec, replace(SMALL, seed=2, max_epochs=2), tmp_path, progress=False)
    anew = train(paths, spec, replace(SMALL, max_epochs=2), tmp_path, progress=False)
    assert "training starts anew" in caplog.text
    assert digest(anew) != digest(other)
    [file] = tmp_path.glob("0/checkpoint-*.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"\x00\x01")
    caplog.clear()
    assert digest(train(paths, spec, replace(SMALL, max_epochs=2), tmp_path, progress=False)) == digest(anew)
    assert "damaged" in caplog.text


def test_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(small, tmp_path):
    spec, paths = small
    train(paths, spec, SMALL, tmp_path, progress=False)
    folder = tmp_path / "0"
    index = json.loads((folder / INDEX).read_text())
    checkpoint = load_checkpoint(folder, index["fingerprint"])
    # Weights so large after the second epoch that the third one's numbers overflow.
    history = [replace(checkpoint.history[0], epoch=2)]
    tensors = {**checkpoint.tensors, "now.encoder.4.weight": checkpoint.tensors["now.encoder.4.weight"] * 1e38}
    save_checkpoint(folder, Checkpoint(checkpoint.fingerprint, history, tensors))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ModelError, match=r"not a number in epoch 3, batch 1\."):
        train(paths, spec, SMALL, tmp_path, progress=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_rates_too_high_stop_with_their_epoch_and_batch(small, tmp_path):
    spec, paths = small
    with pytest.raises(ModelError, match=r"epoch 1, batch \d+\. .*lower the learning rates"):
        train(paths, spec, replace(SMALL, encoder_rate=1e30), tmp_path, progress=False)


def test_training_stops_early_when_hidden_answers_are_foretold_no_better():
    def done(*costs: float) -> bool:
        return is_done([Epoch(10 * number, 0.0, cost) for number, cost in enumerate(costs, 1)], epochs=90)

    assert not done() and not done(0.5, 0.6, 0.6)
    assert done(0.5, 0.6, 0.6, 0.6)
    assert not done(0.5, 0.6, 0.49, 0.6)
    assert done(*[0.5] * 9)


def symptom_free(network: ProfileNetwork) -> float:
    """Share of answers in the lowest category, over the population."""
    with torch.no_grad():
        latents = network.prior.sample(2000, torch.Generator().manual_seed(1))
        return network.items.probabilities(*network.place(latents))[..., 0].mean().item()


def test_weights_are_obeyed_and_their_unit_does_not_matter(small, tmp_path):
    spec, _ = small
    codes, traits = simulate(spec, 600)
    weights = np.where(traits[:, 0] > 0.5, 4.0, 1.0)
    heavy, scaled = (
        train(write_features(tmp_path / name, spec, codes, factor * weights), spec, SMALL, tmp_path / name / "c")
        for name, factor in (("one", 1.0), ("many", 1024.0))
    )
    for name, tensor in heavy.network.state_dict().items():
        torch.testing.assert_close(scaled.network.state_dict()[name], tensor)
    paths = write_features(tmp_path / "plain", spec, codes, weights)
    plain = train(paths, spec, replace(SMALL, weight_column=None), tmp_path / "plain" / "c")
    shares = [symptom_free(r.network) for r in (heavy, plain)]
    assert shares[0] < shares[1], "the heavier people are the more distressed"


def test_of_equal_epochs_the_later_one_is_kept():
    def best(*costs: float) -> int:
        return find_best([Epoch(number, 0.0, cost) for number, cost in enumerate(costs, 1)])

    assert best(0.6, 0.5, 0.55) == 1
    assert best(0.6, 0.5, 0.5 + EQUAL / 2, 0.51) == 2
    assert best(0.5, 0.5 + EQUAL / 2, 0.49) == 2
    assert best(0.5, 0.501, 0.502) == 0, "worse by little again and again is not equal"


def test_rates_fall_and_end_low():
    rates = [find_rate(done / 20) for done in range(21)]
    assert rates[0] == 1.0 and rates == sorted(rates, reverse=True)
    assert rates[-1] == rates[14] == pytest.approx(0.1)


def edge_codes(case: str) -> np.ndarray:
    codes, _ = simulate(make_spec((4, 2)), 200)
    if case == "one level answered":
        codes[:, 1] = np.where(codes[:, 1] >= 0, 2, -1)
    if case == "nobody answers an item":
        codes[:, 5] = -1
    if case == "levels never seen in training":
        held = np.arange(len(codes)) % 10 == 0
        codes[~held] = np.minimum(codes[~held], 1)
        codes[held, 0] = 3
    if case == "ten people":
        return codes[:10]
    if case == "two people answer":
        codes = codes[:12]
        codes[1:11] = -1
    return codes


@pytest.mark.parametrize(
    "case",
    [
        "one level answered",
        "nobody answers an item",
        "levels never seen in training",
        "ten people",
        "two people answer",
    ],
)
def test_thin_data_gives_finite_profiles(case, tmp_path):
    spec, codes = make_spec((4, 2)), edge_codes(case)
    result = train(write_features(tmp_path / "f", spec, codes), spec, SMALL, tmp_path / "c", progress=False)
    every = torch.from_numpy(np.stack([np.full(6, level, dtype=np.int8) for level in range(-1, 4)]))
    with torch.no_grad():
        categories = result.network.categories(every)
        posterior = result.network.posterior(categories)
        figures = [posterior.mean, posterior.sd(), result.network.infer(categories, 32).bound()]
        figures += [result.network.person_fit(categories, posterior), result.network.predict(categories)]
    assert all(torch.isfinite(figure).all() for figure in figures)
    assert np.isfinite(list(result.report["validation"].values())).all()


def test_all_weight_on_one_person_gives_finite_profiles(tmp_path):
    spec = make_spec((4, 2))
    weights = np.zeros(200)
    weights[[10, 33]] = 1e6
    paths = write_features(tmp_path / "f", spec, simulate(spec, 200)[0], weights)
    result = train(paths, spec, SMALL, tmp_path / "c", progress=False)
    assert all(torch.isfinite(tensor).all() for tensor in result.network.state_dict().values())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda codes, weights: codes.fill(-1), "nothing to train on"),
        (lambda codes, weights: weights.fill(0), "nothing to train on"),
        (lambda codes, weights: codes.__setitem__(slice(None, None, 10), -1), "fold 0.*could not be judged"),
        (lambda codes, weights: weights.__setitem__(3, np.nan), "weights in weight must be finite"),
        (lambda codes, weights: weights.__setitem__(3, -1), "weights in weight must be finite"),
        (lambda codes, weights: codes.__setitem__((3, 2), 4), "outside their levels: t0_2"),
    ],
)
def test_features_that_cannot_be_trained_on_are_refused(change, reason, tmp_path):
    spec = make_spec((4, 2))
    codes, weights = simulate(spec, 60)[0], np.ones(60)
    change(codes, weights)
    paths = write_features(tmp_path / "f", spec, codes, weights)
    with pytest.raises(ModelError, match=reason):
        train(paths, spec, SMALL, tmp_path / "c", progress=False)


def test_files_that_do_not_fit_are_named(tmp_path, small):
    spec, paths = small
    with pytest.raises(ModelError, match="missing: loose_0"):
        train(paths, make_spec((4, 2), loose=1), SMALL, tmp_path, progress=False)
    lone = tmp_path / "lone.parquet"
    pq.write_table(pq.read_table(paths[0]).drop_columns(["fold"]), lone)
    with pytest.raises(ModelError, match=r"lone\.parquet has no column fold"):
        train([lone], spec, SMALL, tmp_path, progress=False)
    lone.write_bytes(lone.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"lone\.parquet cannot be read"):
        train([lone], spec, SMALL, tmp_path, progress=False)
