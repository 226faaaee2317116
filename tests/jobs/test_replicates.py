"""Replicate weights against R's svrepdesign, and weights that do not match."""

import numpy as np
import pytest

from expectations.errors import ContractBroken
from expectations.replication import choose_scales, spread_run
from jobs.presentation import log_t_interval, t_interval
from jobs.quantiles import estimate_quantile
from jobs.replicates import check_totals, count_df, estimate_replicated
from tests.jobs.golden_survey import METHODS, read_estimates, read_people, read_weights, select


@pytest.mark.parametrize("name", METHODS)
def test_as_in_r(name):
    weights, replication = read_weights(name)
    check_totals(weights.sum(axis=0), [f"w{i}" for i in range(weights.shape[1] - 1)])
    everybody = read_people()
    for row in read_estimates(name):
        told = f"{row['domain']} {row['outcome']} {row['kind']}"
        answers = ("y", "x") if row["kind"] == "ratio" else (row["outcome"].split("_")[0],)
        people = select(everybody, row["domain"], *answers)
        w, y = weights[people.index], people[answers[0]].to_numpy()
        df = count_df(w[:, 1:])
        assert df == row["df"], told
        if row["kind"] == "quantile":
            values = np.unique(y)
            share = int(row["outcome"].removeprefix("y_p")) / 100

            def share_se(value, w=w, y=y):
                return estimate_replicated((w * (y <= value)[:, None]).sum(axis=0) / w.sum(axis=0), replication)[1]

            got = estimate_quantile(values, np.array([w[y == v, 0].sum() for v in values]), share, share_se, df)
            assert (got.estimate, got.ci_low, got.ci_high) == (row["estimate"], row["ci_low"], row["ci_high"]), told
            continue
        total = (w * y[:, None]).sum(axis=0)
        figures = {
            "total": total,
            "mean": total / w.sum(axis=0),
            "ratio": total / (w * people[answers[-1]].to_numpy()[:, None]).sum(axis=0),
        }[row["kind"]]
        estimate, se = estimate_replicated(figures, replication)
        assert (estimate, se) == pytest.approx((row["estimate"], row["se"]), rel=1e-11), told
        bounds = (log_t_interval if row["kind"] == "total" else t_interval)(estimate, se, df)
        assert bounds == pytest.approx((row["ci_low"], row["ci_high"]), rel=1e-9), told


def test_a_replicate_in_which_the_cell_has_nobody_is_left_out():
    replication = choose_scales("JK1", 3, scale=1.0)
    assert estimate_replicated(np.array([2.0, 1.0, np.nan, 3.0]), replication) == (2.0, pytest.approx(2**0.5))
    assert estimate_replicated(np.array([2.0, np.nan, np.nan, np.nan]), replication) == (2.0, None)


def test_doubling_every_weight_doubles_totals_and_changes_no_mean():
    weights, replication = read_weights("bootstrap")
    people = read_people()
    kept = people["y"].notna().to_numpy()
    total = (weights[kept] * people["y"].to_numpy()[kept, None]).sum(axis=0)
    mean = total / weights[kept].sum(axis=0)
    assert estimate_replicated(2 * total, replication) == tuple(2 * x for x in estimate_replicated(total, replication))
    assert estimate_replicated(2 * total / (2 * weights[kept].sum(axis=0)), replication) == estimate_replicated(
        mean, replication
    )


WRONG = [
    (("JKn", 4), {}, "JKn needs `rscales`"),
    (("JKn", 4), {"rscales": [0.5, 0.5]}, "2 `rscales` for 4 columns"),
    (("Fay", 4), {}, "`rho` is needed"),
    (("BRR", 4), {"rho": 0.3}, "for no other"),
    (("ACS", 80), {"scale": 0.05}, "ACS has its own scale"),
    (("BRR", 1), {}, "at least 2"),
]


@pytest.mark.parametrize(("given", "options", "message"), WRONG)
def test_scales_that_do_not_fit_the_method(given, options, message):
    with pytest.raises(ValueError, match=message):
        choose_scales(*given, **options)


def test_a_run_of_columns_may_be_padded():
    assert spread_run("W_REP8-W_REP11") == ("W_REP8", "W_REP9", "W_REP10", "W_REP11")
    assert spread_run("a1b08-a1b10") == ("a1b08", "a1b09", "a1b10")
    assert spread_run("brr_a") == ("brr_a",)


@pytest.mark.parametrize("entry", ["rep1-weight9", "rep9-rep1", "rep-rep9", "rep1-rep1"])
def test_what_is_no_run_of_columns(entry):
    with pytest.raises(ValueError, match="is no run of numbered columns"):
        spread_run(entry)


@pytest.mark.parametrize(
    ("totals", "message"),
    [
        ([1000.0, 990.0, 0.0], "replicate weight rep2 adds up to nothing"),
        ([1000.0, 990.0, float("nan")], "replicate weight rep2 adds up to nothing"),
        ([1000.0, 1.0, 1.1], "add up to 1 on average, the full weight to 1,000"),
    ],
)
def test_replicate_weights_that_belong_to_another_weight(totals, message):
    with pytest.raises(ContractBroken, match=message):
        check_totals(np.array(totals), ["rep1", "rep2"])


def test_weights_over_nine_orders_of_magnitude_keep_their_rank():
    rng = np.random.default_rng(3)
    w = 10 ** rng.uniform(-3, 6, (200, 1)) * rng.uniform(0.5, 1.5, (200, 5))
    w = np.hstack([w, w[:, :1] + w[:, 1:2]])
    assert count_df(w) == count_df(np.linalg.qr(w, mode="r")) == 4
    assert count_df(rng.uniform(size=(50, 80))) == 49
    assert count_df(np.zeros((4, 4))) == 0
