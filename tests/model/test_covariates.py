"""Covariates have likelihoods of their kind given the traits, and bend neither traits nor profiles."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy import stats
from scipy.special import expit

from model.covariate_heads import CovariateHead
from model.covariates import MOST_PEOPLE, CovariateFigures, fit_covariates, fit_rare, read_covariates, read_known
from model.errors import ModelError
from model.spec import CovariateSpec, FeatureSpec, compare_specs
from tests.model.conftest import Trained
from tests.model.simulation import make_spec, simulate

LEVELS = ("north", "south", "east")
COVARIATES = (
    CovariateSpec("region", "nominal", LEVELS),
    CovariateSpec("urban", "binary", ("0", "1")),
    CovariateSpec("income", "continuous"),
    CovariateSpec("visits", "count"),
)
SLOPES = {"region": [[0.8, 0.0], [0.0, -0.6]], "urban": [[-0.7, 0.5]], "income": [[-0.5, 0.2]], "visits": [[0.4, 0.1]]}
INCOME_SD = 3.0


def draw_covariates(traits: np.ndarray, seed: int = 3) -> np.ndarray:
    """People's covariates (people, 4) with the slopes above; the count's dispersion is .5."""
    random, people = np.random.default_rng(seed), len(traits)
    linear = {key: traits @ np.array(rows).T for key, rows in SLOPES.items()}
    logits = np.concatenate([np.zeros((people, 1)), linear["region"] + [0.3, -0.2]], axis=1)
    mean = np.exp(0.5 + linear["visits"][:, 0])
    return np.stack(
        [
            (logits + random.gumbel(size=logits.shape)).argmax(axis=1),
            random.uniform(size=people) < expit(linear["urban"][:, 0] - 0.4),
            20 + INCOME_SD * (linear["income"][:, 0] + random.normal(size=people)),
            random.negative_binomial(2, 2 / (2 + mean)),
        ],
        axis=1,
    ).astype(np.float64)


def fit_simulated(
    trained: Trained, values: np.ndarray, codes: np.ndarray, covariates: tuple[CovariateSpec, ...] = COVARIATES
) -> tuple[list[CovariateFigures], list[CovariateHead]]:
    network = trained.result.network.copy()
    heads = [CovariateHead(part, 2) for part in covariates]
    network.covariates = torch.nn.ModuleList(heads)
    folds = np.arange(len(values)) % 10
    found = fit_covariates(network, network.categories(torch.from_numpy(codes)), torch.ones(len(values)), folds, values)
    return found, heads


def write_columns(path: Path, columns: dict[str, list[object]]) -> list[Path]:
    pq.write_table(pa.table(columns), path)
    return [path]


def spec_with(*covariates: CovariateSpec) -> FeatureSpec:
    return replace(make_spec((2, 2)), covariates=covariates)


@pytest.mark.parametrize("spec", COVARIATES, ids=lambda spec: spec.kind)
def test_log_probabilities_are_those_of_the_textbook(spec):
    random = np.random.default_rng(5)
    head = CovariateHead(spec, 2)
    head.slopes.copy_(torch.from_numpy(random.normal(size=tuple(head.slopes.shape))))
    head.constants.copy_(torch.from_numpy(random.normal(size=len(head.constants))))
    head.log_shape.fill_(-0.7)
    head.center.fill_(2.5)
    head.scale.fill_(1.7)
    traits, values = random.normal(size=(3, 4, 2)), np.array([0.0, 1.0, 1.0, np.nan])
    found = head.log_prob(torch.from_numpy(traits), torch.from_numpy(values)).numpy()
    assert (found[:, 3] == 0.0).all()
    linear = traits[:, :3] @ head.slopes.numpy().T + head.constants.numpy()
    at = values[:3]
    if spec.levels:
        logits = np.concatenate([np.zeros((3, 3, 1)), linear], axis=2)
        chances = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
        expected = np.log(np.take_along_axis(chances, at.astype(int)[None, :, None].repeat(3, 0), axis=2))[..., 0]
    elif spec.kind == "continuous":
        expected = stats.norm.logpdf(at, 2.5 + 1.7 * linear[..., 0], 1.7 * np.exp(-0.7))
    else:
        mean, size = 2.5 * np.exp(linear[..., 0]), 1 / (np.exp(-0.7) + 1e-4)
        expected = stats.nbinom.logpmf(at, size, size / (size + mean))
    assert found[:, :3] == pytest.approx(expected)


@pytest.fixture(scope="module")
def simulated(trained: Trained) -> tuple[np.ndarray, np.ndarray]:
    codes, traits = simulate(trained.spec, 8000, seed=9)
    return codes, draw_covariates(traits)


def test_slopes_are_found_through_answers_alone(trained, simulated):
    codes, values = simulated
    values = values.copy()
    values[np.random.default_rng(4).uniform(size=values.shape) < 0.2] = np.nan
    found, heads = fit_simulated(trained, values, codes)
    for figures, head in zip(found, heads, strict=True):
        slopes = np.array(figures.slopes) * (float(head.scale) / INCOME_SD if figures.kind == "continuous" else 1.0)
        assert slopes == pytest.approx(np.array(SLOPES[figures.key]), abs=0.12), figures.key
        assert figures.cost < figures.margin_cost
    assert found[0].people_by_level == {
        level: int((values[np.arange(8000) % 10 > 0, 0] == number).sum()) for number, level in enumerate(LEVELS)
    }


def test_covariates_that_tell_nothing_cost_what_the_margins_cost(trained, simulated):
    codes, values = simulated
    found, _ = fit_simulated(trained, np.random.default_rng(8).permuted(values, axis=0), codes)
    for figures in found:
        assert abs(np.array(figures.slopes)).max() < 0.15
        assert figures.cost == pytest.approx(figures.margin_cost, abs=0.01)


def test_levels_that_nobody_has_stay_finite(trained, simulated):
    codes, values = simulated
    values = values[:, :2].copy()
    values[values == 2] = np.nan
    covariates = (replace(COVARIATES[0], levels=(*LEVELS, "west")), COVARIATES[1])
    found, heads = fit_simulated(trained, values, codes, covariates)
    assert found[0].people_by_level["east"] == found[0].people_by_level["west"] == 0
    assert np.isfinite(found[0].slopes).all() and heads[0].constants.isfinite().all()


@pytest.mark.parametrize("spec", COVARIATES, ids=lambda spec: spec.kind)
def test_separable_covariates_stay_finite(trained, simulated, spec):
    codes, _ = simulated
    values = (codes[:, :1].clip(0) >= 2).astype(np.float64)
    found, _ = fit_simulated(trained, values, codes, (spec,))
    assert np.isfinite(found[0].slopes).all() and found[0].cost < found[0].margin_cost


@pytest.mark.parametrize("known", ["nobody", "few", "one value"])
def test_too_little_to_learn_from_is_told_and_teaches_nothing(trained, simulated, known):
    codes, values = simulated
    values = values.copy()
    if known == "one value":
        values[:] = 1.0
    else:
        values[0 if known == "nobody" else 90 :] = np.nan
    found, heads = fit_simulated(trained, values, codes)
    for figures, head in zip(found, heads, strict=True):
        assert (figures.slopes, figures.cost, figures.margin_cost) == ([], None, None)
        assert not head.slopes.any()
    assert found[0].people == {"nobody": 0, "few": 81, "one value": 7200}[known]


def test_the_same_numbers_every_time(trained, simulated):
    codes, values = simulated
    first, second = (fit_simulated(trained, values[:2000], codes[:2000])[0] for _ in range(2))
    assert first == second


def test_what_is_known_of_few_is_learned_of_whoever_has_it(trained, simulated, tmp_path):
    """Nobody among the first people; of the others those with a high first trait alone, as clinicians might choose."""
    codes, values = simulated
    people = min(len(codes), 8_000)
    codes, values = codes[:people], values[:people].copy()
    chosen = np.random.default_rng(1).random(people) < 0.4
    values[~chosen | (codes[:, 0] < 1), 1] = np.nan
    spec = replace(trained.result.network.spec, covariates=(COVARIATES[1],))
    texts = [None if np.isnan(value) else str(int(value)) for value in values[:, 1]]
    table = {key: codes[:, place] for place, key in enumerate(spec.columns)}
    table |= {"fold": np.arange(people) % 10, "urban": pa.array(texts, pa.string())}
    pq.write_table(pa.table(table), tmp_path / "a.parquet", row_group_size=1_000)
    found, values_read = read_known([tmp_path / "a.parquet"], spec, None, COVARIATES[1])
    known = ~np.isnan(values[:, 1])
    np.testing.assert_array_equal(found.codes, codes[known])
    np.testing.assert_array_equal(values_read, values[known, 1])
    assert known.sum() < MOST_PEOPLE
    network = trained.result.network.copy()
    network.spec, network.covariates = spec, torch.nn.ModuleList([CovariateHead(COVARIATES[1], 2)])
    nothing = [CovariateFigures("urban", "binary", 0, {"0": 0, "1": 0}, [], None, None)]
    (learned,) = fit_rare(network, nothing, [tmp_path / "a.parquet"], None)
    assert learned.people == int((known & (np.arange(people) % 10 != 0)).sum())
    np.testing.assert_allclose(learned.slopes, SLOPES["urban"], atol=0.3)
    enough = [replace(nothing[0], people=100)]
    assert fit_rare(network, enough, [tmp_path / "a.parquet"], None) == enough


def test_the_network_is_left_as_it_was(trained, simulated):
    codes, values = simulated
    network = trained.result.network.copy()
    network.covariates = torch.nn.ModuleList([CovariateHead(part, 2) for part in COVARIATES])
    categories = network.categories(torch.from_numpy(codes[:500]))
    fit_covariates(network, categories, torch.ones(500), np.arange(500) % 10, values[:500])
    after = network.state_dict()
    for name, before in trained.result.network.state_dict().items():
        assert torch.equal(after[name], before), name


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (CovariateSpec("x", "ordinal"), "unknown kind"),
        (CovariateSpec("x", "binary", ("a",)), "needs two levels"),
        (CovariateSpec("x", "nominal", ("a", "a")), "two different levels"),
    ],
)
def test_covariates_that_cannot_be_are_refused(part, words):
    with pytest.raises(ModelError, match=words):
        spec_with(part)


def test_covariates_go_through_json_and_keep_no_model_from_scoring():
    spec = spec_with(*COVARIATES)
    assert FeatureSpec.from_json(spec.to_json()) == spec
    assert compare_specs(spec, spec_with(COVARIATES[0])) == []


def test_columns_are_read_as_numbers_and_positions(tmp_path):
    columns = {
        "region": ["south", None, "north", "north"],
        "income": [1.5, None, -2.0, 0.0],
        "visits": [0.0, 3.0, None, 1.0],
    }
    spec = spec_with(*(part for part in COVARIATES if part.key in columns))
    paths = write_columns(tmp_path / "a.parquet", columns)
    expected = np.array([[1, 1.5, 0], [np.nan, np.nan, 3], [0, -2, np.nan], [0, 0, 1]])
    np.testing.assert_array_equal(read_covariates(paths, spec, 10), expected)
    np.testing.assert_array_equal(read_covariates(paths * 2, spec, 6), np.concatenate([expected, expected[:2]]))
    assert read_covariates(paths, make_spec((2, 2)), 10).shape == (0, 0)


@pytest.mark.parametrize(
    ("columns", "part"),
    [
        ({"income": [1.0]}, "no covariate region"),
        ({"region": ["north", "mars"]}, "1 rows of covariate region hold none of its levels"),
        ({"visits": [1.0, -1.0]}, "covariate visits is a count"),
        ({"visits": [1.0, 0.5]}, "covariate visits is a count"),
        ({"income": [1.0, float("inf")]}, "covariate income holds numbers that are not finite"),
    ],
)
def test_columns_that_do_not_fit_are_named(tmp_path, columns, part):
    named = [spec for spec in COVARIATES if spec.key in columns and "no covariate" not in part]
    spec = spec_with(*(named or [COVARIATES[0]]))
    with pytest.raises(ModelError, match=part) as error:
        read_covariates(write_columns(tmp_path / "a.parquet", columns), spec, 10)
    assert "mars" not in str(error.value)
