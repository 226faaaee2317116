"""Totals, ratios and changes of a domain, from the same sums per PSU as its means and proportions.

Taylor linearisation: each figure has a score per PSU, whose variance is that of PSUs drawn with replacement within
strata (Woodruff 1971; Sarndal, Swensson and Wretman 1992, 5.5). Totals and ratios as R's svytotal and svyratio. Domains
that have replicate weights take the variance from them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.linearisation import score_ratio, score_whole_total
from jobs.presentation import MIN_DF, Presentation, judge_count, judge_mean, log_t_interval, t_interval
from jobs.survey import (
    DomainSums,
    Estimate,
    Kind,
    LonelyPsu,
    count_df,
    explain_no_variance,
    keep_answered,
    sum_variance,
)

NO_DF = "no degrees of freedom, so no interval"
Design = Mapping[str, frozenset[str]]  # the PSUs of each stratum of the full design
Sizes = Mapping[str, int]  # PSUs per stratum of the full design


@dataclass(frozen=True)
class Response:
    """Who gave an answer to one outcome: weights per PSU of the whole design, of everybody and of those who did."""

    stratum: NDArray[Any]
    psu: NDArray[Any]
    everybody: NDArray[np.float64]
    answered: NDArray[np.float64]

    @staticmethod
    def of(everybody: DomainSums, answered: DomainSums) -> "Response":
        """From the sums of all people; a PSU without an answer stands in `everybody` alone."""
        weights = place_sums(answered, answered.sum_w, everybody.stratum, everybody.psu)
        return Response(everybody.stratum, everybody.psu, everybody.sum_w, weights)


def estimate_total(
    domain: DomainSums, sizes: Sizes, lonely_psu: LonelyPsu = "fail", response: Response | None = None
) -> Estimate:
    """The estimated number of people with the outcome, with its log-t interval; `domain` is a proportion's.

    With `response`, those who gave an answer stand for those of their stratum who gave none, in every cell alike, so
    that the cells of a breakdown add up to the total. `n_weighted` stays the weight of those who answered.
    Raises ContractBroken for a lonely PSU under `fail`.
    """
    domain = keep_answered(domain)
    n, n_cases, weight = int(domain.n.sum()), int(domain.n_cases.sum()), math.fsum(domain.sum_w)
    if not n:
        return leave_out("total", n, n_cases, weight, None, None, "nobody in the cell answered")
    df, stratum, scores = count_df(domain), domain.stratum, domain.sum_wy
    total = math.fsum(scores)
    if response is not None:
        total, stratum, scores = _stand_for(domain, response)
    replicates = domain.replicates
    variance = replicates.vary_total() if replicates else sum_variance(stratum, scores, sizes, lonely_psu)
    if variance is None:
        return leave_out("total", n, n_cases, weight, total, df, explain_no_variance(domain))
    if not n_cases:
        return replace(leave_out("total", n, 0, weight, 0.0, df, "nobody with the outcome: no interval"), se=0.0)
    se = math.sqrt(variance)
    low, high = log_t_interval(total, se, df) if df > 0 else (None, None)
    presentation, reason = judge_count(total, se, n_cases, df)
    return Estimate("total", n, n_cases, weight, total, se, df, low, high, "log-t", None, presentation, reason)


def _stand_for(domain: DomainSums, response: Response) -> tuple[float, NDArray[Any], NDArray[np.float64]]:
    """The total with strata as classes, and each PSU's stratum and score; who is outside the domain adds 0."""
    sum_wy = place_sums(domain, domain.sum_wy, response.stratum, response.psu)
    _, place = np.unique(response.stratum, return_inverse=True)
    total, scores = score_whole_total(place, response.everybody, response.answered, sum_wy)
    return total, response.stratum, scores


def place_sums(domain: DomainSums, sums: NDArray[Any], stratum: NDArray[Any], psu: NDArray[Any]) -> NDArray[np.float64]:
    """The domain's sums at the PSUs named, 0 where it has none; a PSU's name counts within its stratum alone."""
    found = dict(zip(zip(domain.stratum.tolist(), domain.psu.tolist(), strict=True), sums.tolist(), strict=True))
    return np.array([found.get(key, 0.0) for key in zip(stratum.tolist(), psu.tolist(), strict=True)])


def estimate_ratio(
    numerator: DomainSums, denominator: DomainSums, sizes: Sizes, lonely_psu: LonelyPsu = "fail"
) -> Estimate:
    """The numerator's total over the denominator's, both of the people who answered both, with its t interval.

    Raises ContractBroken for a lonely PSU under `fail`, ValueError where the two are not of the same people.
    """
    top, bottom = keep_answered(numerator), keep_answered(denominator)
    if not np.array_equal(top.psu, bottom.psu) or not np.array_equal(top.n, bottom.n):
        raise ValueError("numerator and denominator are sums over different people")
    n, weight, whole = int(top.n.sum()), math.fsum(top.sum_w), math.fsum(bottom.sum_wy)
    if not n:
        return leave_out("ratio", n, None, weight, None, None, "nobody in the cell answered")
    if whole == 0:
        return leave_out("ratio", n, None, weight, None, count_df(top), "the denominator is 0")
    (ratio, scores), df = score_ratio(top.sum_wy, bottom.sum_wy), count_df(top)
    if top.replicates and bottom.replicates:
        variance = top.replicates.vary_ratio(bottom.replicates)
    else:
        variance = sum_variance(top.stratum, scores, sizes, lonely_psu)
    if variance is None:
        return leave_out("ratio", n, None, weight, ratio, df, explain_no_variance(top))
    se = math.sqrt(variance)
    if se == 0:
        return replace(leave_out("ratio", n, None, weight, ratio, df, "no variance between PSUs: no interval"), se=0.0)
    low, high = t_interval(ratio, se, df) if df > 0 else (None, None)
    presentation, reason = judge_mean(ratio, se, n, df)
    return Estimate("ratio", n, None, weight, ratio, se, df, low, high, "t", None, presentation, reason)


@dataclass(frozen=True)
class Linearised:
    """A mean or proportion with its score per PSU (arrays over PSUs), and the PSUs of each stratum of its design.

    `sampled` is the share of a stratum's PSUs that is in the sample, where that is known.
    """

    figures: Estimate
    stratum: NDArray[Any]
    psu: NDArray[Any]
    scores: NDArray[np.float64]
    design: Design
    sampled: Mapping[str, float] = field(default_factory=dict)


def linearise(
    figures: Estimate, domain: DomainSums, design: Design, sampled: Mapping[str, float] | None = None
) -> Linearised | None:
    """None where the estimate or its variance does not exist."""
    if figures.estimate is None or figures.se is None or not figures.n_weighted:
        return None
    domain = keep_answered(domain)
    scores = (domain.sum_wy - figures.estimate * domain.sum_w) / figures.n_weighted
    return Linearised(figures, domain.stratum, domain.psu, scores, design, sampled or {})


def estimate_change(now: Linearised, before: Linearised, extra_variance: float = 0.0) -> Estimate:
    """`now` less `before`, two nights' estimates of one figure: V(now) + V(before) - 2 Cov + `extra_variance`.

    The covariance is that of the PSUs which are in both samples: a panel's PSUs, or people who answered again. A
    stratum's part is the root of both designs' (1 - f) m/(m-1), of f the share of PSUs sampled, times the sum of the
    products of its centred scores, which is the variance of the difference where the samples have the same PSUs, and 0
    where they have none in common. df counts the PSUs of either night less its strata, a stratum without a common PSU
    once for each night.
    """
    new, old = now.figures, before.figures
    assert new.estimate is not None and old.estimate is not None and new.se is not None and old.se is not None
    covariance, df = _compare_psus(now, before)
    variance = max(0.0, new.se**2 + old.se**2 - 2 * covariance) + extra_variance
    change, se = new.estimate - old.estimate, math.sqrt(variance)
    n, weight = new.n, new.n_weighted
    if df <= 0 or se == 0:
        reason = NO_DF if df <= 0 else "no variance between PSUs: no interval"
        return replace(leave_out("change", n or 0, None, weight or 0.0, change, df, reason), se=se)
    low, high = t_interval(change, se, df)
    presentation, reason_ = _judge_change(new, old, df)
    return Estimate("change", n, None, weight, change, se, df, low, high, "t", None, presentation, reason_)


def subtract_nights(now: Estimate, before: Estimate, extra_variance: float = 0.0) -> Estimate | None:
    """The change of a figure between two nights, of which no covariance is known; a trait's has that of its link, too.

    The nights are taken to be independent samples: where they share PSUs, the variance is too large rather than too
    small. df is the smaller one. None where one of the two has no estimate or no variance.
    """
    if now.estimate is None or before.estimate is None or now.se is None or before.se is None:
        return None
    change, df = now.estimate - before.estimate, min(now.df or 0, before.df or 0)
    se = math.sqrt(now.se**2 + before.se**2 + extra_variance)
    if df <= 0 or se == 0:
        reason = NO_DF if df <= 0 else "no variance between PSUs: no interval"
        return replace(leave_out("change", now.n or 0, None, now.n_weighted or 0.0, change, df, reason), se=se)
    low, high = t_interval(change, se, df)
    presentation, reason_ = _judge_change(now, before, df)
    return Estimate("change", now.n, None, now.n_weighted, change, se, df, low, high, "t", None, presentation, reason_)


def _judge_change(new: Estimate, old: Estimate, df: int) -> tuple[Presentation, str | None]:
    """House rule: a change is as reliable as the less reliable of its two figures."""
    if "suppress" in (new.presentation, old.presentation):
        return "suppress", "one of the two figures is too uncertain (house rule)"
    return judge_change(df)


def judge_change(df: int) -> tuple[Presentation, str | None]:
    """Of two figures that may be shown."""
    if df <= 0:
        return "suppress", NO_DF
    if df < MIN_DF:
        return "review", f"fewer than {MIN_DF} degrees of freedom (house rule)"
    return "present", None


def _compare_psus(now: Linearised, before: Linearised) -> tuple[float, int]:
    """The covariance of two estimates over the PSUs that both designs have, and the df of their difference."""
    parts, df = [], 0
    for stratum in np.unique(np.concatenate([now.stratum, before.stratum])).tolist():
        one, other = (_find_scores(side, stratum) for side in (now, before))
        designs = [side.design.get(stratum, frozenset()) for side in (now, before)]
        common = sorted(designs[0] & designs[1])
        df += len(one.keys() | other.keys()) - (1 if common or not one or not other else 2)
        if common and min(map(len, designs)) > 1:
            shares = [side.sampled.get(stratum, 0.0) for side in (now, before)]
            scale = math.prod(
                math.sqrt((1 - share) * len(design) / (len(design) - 1))
                for design, share in zip(designs, shares, strict=True)
            )
            means = [math.fsum(s.values()) / len(d) for s, d in zip((one, other), designs, strict=True)]
            # A PSU without anybody of the domain scores 0.
            products = [(one.get(psu, 0.0) - means[0]) * (other.get(psu, 0.0) - means[1]) for psu in common]
            parts.append(scale * math.fsum(products))
    return math.fsum(parts), df


def _find_scores(side: Linearised, stratum: str) -> dict[str, float]:
    inside = side.stratum == stratum
    return dict(zip(side.psu[inside].tolist(), side.scores[inside].tolist(), strict=True))


def leave_out(
    kind: Kind,
    n: int | None,
    n_cases: int | None,
    weight: float | None,
    estimate: float | None,
    df: int | None,
    reason: str,
) -> Estimate:
    """An estimate without an interval, or without any figure, and why."""
    return Estimate(kind, n, n_cases, weight, estimate, None, df, None, None, None, None, "suppress", reason)
