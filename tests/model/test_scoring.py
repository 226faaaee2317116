from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks.plain_scoring import PlainScorer
from model.errors import ModelError
from model.network import ProfileNetwork
from model.rewriting import Piece
from model.scoring import BLOCK, Scorer, score_file
from tests.model.simulation import simulate


@pytest.fixture(scope="module")
def scorer(trained):
    return Scorer.load(trained.folder)


def table_of(codes: np.ndarray, scorer: Scorer) -> pa.Table:
    return pa.table({key: codes[:, position] for position, key in enumerate(scorer.model.spec.columns)})


def test_columns_and_types(scorer):
    scored = scorer.score(table_of(simulate(scorer.model.spec, 20)[0], scorer))
    assert [(field.name, str(field.type)) for field in scored.schema] == [
        ("model_version", "string"),
        ("t0_mean", "float"),
        ("t0_sd", "float"),
        ("t0_percentile", "float"),
        ("t0_percentile_low", "float"),
        ("t0_percentile_high", "float"),
        ("t1_mean", "float"),
        ("t1_sd", "float"),
        ("t1_percentile", "float"),
        ("t1_percentile_low", "float"),
        ("t1_percentile_high", "float"),
        ("s0_expected", "float"),
        ("s0_ge6_probability", "float"),
        ("s1_expected", "float"),
        ("items_answered", "int16"),
        ("log_likelihood", "float"),
        ("person_fit_percentile", "float"),
    ]
    assert set(scored["model_version"].to_pylist()) == {"simulated-1"}


def test_profiles_point_the_right_way_and_percentiles_fit_the_norms(scorer):
    codes, traits = simulate(scorer.model.spec, 6000, seed=9)
    scored = scorer.score(table_of(codes, scorer))
    for position in (0, 1):
        mean, percentile = (scored[f"t{position}_{part}"].to_numpy() for part in ("mean", "percentile"))
        assert np.corrcoef(mean, traits[:, position])[0, 1] > 0.75
        assert (np.diff(percentile[np.argsort(mean)]) >= 0).all()
        assert np.nanmean(percentile) == pytest.approx(50, abs=3)


def test_a_person_gets_the_same_bits_in_any_company(scorer):
    codes, _ = simulate(scorer.model.spec, BLOCK + 700, seed=3)
    table = table_of(codes, scorer)
    together = scorer.score(table)
    order = np.random.default_rng(1).permutation(len(codes))
    assert scorer.score(table.take(pa.array(order))).equals(together.take(pa.array(order)).combine_chunks())
    for start, stop in ((0, 1), (5, 6), (17, 60), (BLOCK - 3, BLOCK + 9)):
        assert scorer.score(table.slice(start, stop - start)).equals(together.slice(start, stop - start))


def test_every_row_of_a_block_is_computed_alike(scorer):
    codes = np.repeat(simulate(scorer.model.spec, 1, seed=4)[0], BLOCK, axis=0)
    scored = scorer.score(table_of(codes, scorer))
    for name in scored.column_names:
        assert len(scored[name].unique()) == 1, name


def test_number_of_threads_outside_changes_nothing_and_is_left_alone(scorer):
    table = table_of(simulate(scorer.model.spec, 300, seed=6)[0], scorer)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(scorer.score(table))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found[0].equals(found[1])


def test_no_answer_gives_the_prior(scorer):
    codes = np.full((2, 10), -1, dtype=np.int8)
    codes[1, 9] = 1  # an item of no trait
    nobody, loose = scorer.score(table_of(codes, scorer)).to_pylist()
    for key in ("t0", "t1"):
        assert nobody[f"{key}_mean"] == 0 and nobody[f"{key}_sd"] == pytest.approx(1, abs=1e-6)
        for part in ("percentile", "percentile_low", "percentile_high"):
            assert nobody[f"{key}_{part}"] is None and loose[f"{key}_{part}"] is not None
    assert nobody["person_fit_percentile"] is None and 0 <= loose["person_fit_percentile"] <= 100
    assert nobody["items_answered"] == 0 and nobody["log_likelihood"] == 0
    assert loose["items_answered"] == 1 and loose["log_likelihood"] < 0


def test_expected_totals(scorer):
    network = scorer.model.network
    codes, _ = simulate(scorer.model.spec, 50, seed=8, missing=0.4)
    codes[0] = np.maximum(codes[0], 0)
    codes[1] = -1
    scored = scorer.score(table_of(codes, scorer))
    totals = [scored["s0_expected"].to_numpy(), scored["s1_expected"].to_numpy()]
    assert totals[0][0] == codes[0, :5].sum() and totals[1][0] == codes[0, 5:9].sum(), "complete: the total itself"
    masses, latents = weigh_population(network, codes[1:])
    with torch.no_grad():
        # Levels 0 to 3; the second scale's items are turned round for the network.
        scores = network.items.probabilities(*network.place(latents))[..., :4] @ torch.tensor([0.0, 1, 2, 3])
    scores[:, 5:9] = 3 - scores[:, 5:9]
    filled = np.where(codes[1:] >= 0, codes[1:], (masses @ scores).numpy())
    np.testing.assert_allclose(totals[0][1:], filled[:, :5].sum(axis=1), atol=0.35)
    np.testing.assert_allclose(totals[1][1:], filled[:, 5:9].sum(axis=1), atol=0.35)
    assert np.abs(totals[0][1:] - filled[:, :5].sum(axis=1)).mean() < 0.06
    assert np.abs(totals[1][1:] - filled[:, 5:9].sum(axis=1)).mean() < 0.06


def weigh_population(network: ProfileNetwork, codes: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """The posterior without the encoder: how much of each of many draws from the prior people (B) are."""
    with torch.no_grad():
        latents = network.prior.sample(30_000, torch.Generator().manual_seed(1))
        location, spread = network.place(latents)
        categories = network.categories(torch.from_numpy(codes))
        joint = torch.stack([network.items.log_prob(location, spread, row).sum(dim=1) for row in categories])
    return joint.softmax(dim=1), latents


def test_probability_of_reaching_a_cut(scorer):
    network = scorer.model.network
    codes, _ = simulate(scorer.model.spec, 30, seed=8, missing=0.4)
    codes[:5] = np.maximum(codes[:5], 0)
    found = scorer.score(table_of(codes, scorer))["s0_ge6_probability"].to_numpy()
    assert found[:5].tolist() == (codes[:5, :5].sum(axis=1) >= 6).astype(float).tolist()
    masses, latents = weigh_population(network, codes)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        probability = network.items.probabilities(*network.place(latents))[:, :5].clamp(min=0)
        answers = torch.multinomial(probability.flatten(0, 1), 1, generator=generator).view(-1, 5)
    for person in range(30):
        given_answers = torch.from_numpy(codes[person, :5]).long()
        total = torch.where(given_answers >= 0, given_answers, answers).sum(dim=1)
        expected = masses[person] @ (total >= 6).float()
        assert found[person] == pytest.approx(expected.item(), abs=0.1)


def test_plain_code_gives_the_same_profiles(scorer):
    """Nothing that makes scoring fast changes what comes out; of the cuts, plain code only draws what was skipped."""
    codes, _ = simulate(scorer.model.spec, 3000, seed=8, missing=0.3)
    codes[0] = -1
    scored, plain = scorer.score(table_of(codes, scorer)), PlainScorer(scorer.model)
    torch.manual_seed(1)
    for name, column in plain.profile(torch.from_numpy(codes)).items():
        found, expected = scored[name].to_numpy(), column.numpy()
        known = ~np.isnan(found)
        if name.endswith("_probability"):
            assert found.mean() == pytest.approx(expected.mean(), abs=0.005)
            assert np.sqrt(np.mean((found - expected) ** 2)) < 0.1
        else:
            np.testing.assert_allclose(found[known], expected[known], rtol=1e-4, atol=1e-3, err_msg=name)
        assert known.sum() >= 2999


def test_percentiles_lie_in_their_interval(scorer):
    codes, _ = simulate(scorer.model.spec, 3000, seed=9, missing=0.5)
    scored = scorer.score(table_of(codes, scorer))
    for key in ("t0", "t1"):
        low, middle, high = (scored[f"{key}_percentile{part}"].to_numpy() for part in ("_low", "", "_high"))
        known = ~np.isnan(middle)
        assert (low <= middle)[known].all() and (middle <= high)[known].all()
        assert (low[known] >= 0).all() and (high[known] <= 100).all()
        half = 1.6448536 * scored[f"{key}_sd"].to_numpy()
        mean = scored[f"{key}_mean"].to_numpy()
        expected = scorer.model.norms.rank(key, mean[known], (mean - half)[known], (mean + half)[known])
        for found, rank in zip((middle, low, high), expected, strict=True):
            assert found[known] == pytest.approx(rank, abs=0.01)
        answered = scored["items_answered"].to_numpy()
        assert (high - low)[answered >= 8].mean() < (high - low)[(answered > 0) & (answered <= 3)].mean()


def test_person_fit_is_low_for_answers_at_random(scorer):
    codes, _ = simulate(scorer.model.spec, 3000, seed=9, missing=0.0)
    usual = scorer.score(table_of(codes, scorer))["person_fit_percentile"].to_numpy()
    assert usual.mean() == pytest.approx(50, abs=4)
    random = np.random.default_rng(1).integers(0, 4, codes.shape).astype(np.int8)
    random[:, 9] = codes[:, 9]
    assert np.median(scorer.score(table_of(random, scorer))["person_fit_percentile"].to_numpy()) < 15


def test_log_likelihood_is_a_bound_that_comes_near(scorer):
    network = scorer.model.network
    codes, _ = simulate(scorer.model.spec, 200, seed=2)
    codes = codes[(codes >= 0).any(axis=1)]
    found = scorer.score(table_of(codes, scorer))["log_likelihood"].to_numpy()
    with torch.no_grad():
        drawn = network.infer(network.categories(torch.from_numpy(codes)), 4096)
    nearly = drawn.bound().numpy()
    assert (found - nearly).mean() == pytest.approx(0, abs=0.05)
    assert np.abs(found - nearly).max() < 1


def test_empty_batch(scorer):
    scored = scorer.score(table_of(np.empty((0, 10), dtype=np.int8), scorer))
    assert scored.num_rows == 0 and scored.schema == scorer.columns


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array([0, None], pa.int8()), "hold nulls: t0_2"),
        (pa.array([0, 4], pa.int8()), "outside their levels: t0_2"),
        (pa.array([0, -2], pa.int8()), "outside their levels: t0_2"),
        (pa.array([0, 1], pa.int64()), "not int8: t0_2"),
    ],
)
def test_features_that_do_not_fit_are_refused_by_column(scorer, column, reason):
    table = table_of(np.zeros((2, 10), dtype=np.int8), scorer)
    with pytest.raises(ModelError, match=reason):
        scorer.score(table.set_column(2, "t0_2", column))


SCHEMA = pa.schema(
    [
        pa.field("person_id", pa.string(), nullable=False),
        ("model_version", pa.string()),
        ("t0_mean", pa.float32()),
        ("t0_percentile", pa.float32()),
        ("s1_expected", pa.float32()),
        ("items_answered", pa.int16()),
        ("weight", pa.float64()),
    ],
    {"meaning.t0_mean": "posterior mean"},
)


def test_file_is_scored_row_group_by_row_group(scorer, trained, tmp_path):
    features, out = trained.paths[0], tmp_path / "profiles.parquet"
    table = pq.read_table(features)
    assert score_file(scorer, [Piece(features)], out, SCHEMA).rows == table.num_rows
    found = pq.read_table(out)
    assert found.schema.remove_metadata() == SCHEMA.remove_metadata()
    assert found.schema.metadata[b"meaning.t0_mean"] == b"posterior mean"
    assert found["person_id"] == table["person_id"] and found["weight"] == table["weight"]
    scored = scorer.score(table)
    for name in ("t0_mean", "t0_percentile", "s1_expected", "items_answered"):
        assert found[name].combine_chunks().equals(scored[name].combine_chunks())
    assert found["t0_percentile"].null_count == 1, "the person who answered nothing"
    column = pq.ParquetFile(out).metadata.row_group(0).column(SCHEMA.get_field_index("t0_mean"))
    assert column.compression == "ZSTD" and "DICTIONARY" not in str(column.encodings)
    half = tmp_path / "half.parquet"
    assert score_file(scorer, [Piece(features, (1,))], half, SCHEMA).rows == 500
    assert pq.read_table(half).equals(found.slice(500))


def test_failed_scoring_leaves_no_file(scorer, trained, tmp_path):
    out = tmp_path / "profiles.parquet"
    with pytest.raises(ModelError, match="has no columns region"):
        score_file(scorer, [Piece(trained.paths[0])], out, SCHEMA.append(pa.field("region", pa.string())))
    broken = tmp_path / "broken.parquet"
    table = pq.read_table(trained.paths[0])
    codes = table["t0_1"].to_numpy().copy()
    codes[-1] = 9
    pq.write_table(table.set_column(2, "t0_1", pa.array(codes)), broken, row_group_size=500)
    with pytest.raises(ModelError, match="outside their levels: t0_1"):
        score_file(scorer, [Piece(broken)], out, SCHEMA)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.parquet"]


def test_profiles_do_not_hang_on_how_the_features_are_cut(scorer, trained, tmp_path):
    """Empty row groups, tiny files, one large row group: the same profiles, in row groups of one size."""
    table = pa.concat_tables([pq.read_table(path) for path in trained.paths])
    pq.write_table(table, tmp_path / "one.parquet", row_group_size=len(table))
    whole = tmp_path / "whole.parquet"
    assert score_file(scorer, [Piece(tmp_path / "one.parquet")], whole, SCHEMA).rows == len(table)
    pieces = []
    for number, start in enumerate(range(0, len(table), 100)):
        pieces.append(Piece(tmp_path / f"tiny-{number}.parquet"))
        with pq.ParquetWriter(pieces[-1].path, table.schema) as writer:
            writer.write_table(table.slice(start, 0))
            writer.write_table(table.slice(start, 100))
    parts = tmp_path / "parts.parquet"
    assert score_file(scorer, pieces, parts, SCHEMA).rows == len(table)
    assert pq.read_table(parts).equals(pq.read_table(whole))
    assert pq.read_metadata(parts).num_row_groups == 1


def test_a_profile_that_is_no_number_stops_and_names_its_pseudonym(scorer, trained, tmp_path):
    network = scorer.model.network.copy()
    # One answer of one item spoils whoever gave it.
    position = int(network.starts[0]) + 3
    network.encoder[0].weight[:, position] = 3e38
    result = replace(scorer.model.result, network=network)
    spoiled = replace(scorer, model=replace(scorer.model, result=result))
    people = pq.read_table(trained.paths[0])
    wrong = set(people["person_id"].filter(pa.array(people["t0_0"].to_numpy() == 3)).to_pylist())
    with pytest.raises(ModelError, match=f"is not a number for {len(wrong)} people") as told:
        score_file(spoiled, [Piece(trained.paths[0])], tmp_path / "profiles.parquet", SCHEMA)
    named = str(told.value).split("people, ")[1].split(" among")[0].split(", ")
    assert set(named) <= wrong and named
    assert list(tmp_path.iterdir()) == []
