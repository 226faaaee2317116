"""Membership inference: how well an attacker with a model tells who it was trained on, by likelihood ratios.

LiRA (Carlini et al. 2022): of each person, normal distributions of the score under models that were trained with them
and without. Online, a model's ratio of the two says whether they were in; offline, how far it lies above those without.
Every model is the target once, the others are its shadows: they give the distributions, and of both forms of the attack
the one that tells shadows apart better, with its threshold, which is then applied to the target as it is.
Shapes: M models, N people.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from model.shadows import Flags, Floats, Shadows

Integers = npt.NDArray[np.int64]

FALSE_POSITIVES = 0.01
CONFIDENCE = 0.95
LEAST_VARIANCE = 1e-12
HALVES = 100  # of the people, for the limits


@dataclass(frozen=True)
class Attack:
    """Of everybody: shares of true and false positives at the threshold that told shadows apart best, their difference
    (`advantage`) with its one-sided upper limit, and true positives where shadows have 1 % of false ones. `offline` is
    the share of targets that were attacked in that form.
    """

    models: int
    people: int
    true_positives: float
    false_positives: float
    advantage: float
    advantage_upper95: float
    tpr_at_fpr1: float
    tpr_at_fpr1_upper95: float
    fpr_at_fpr1: float
    offline: float


def attack(shadows: Shadows) -> Attack:
    """Every model in turn; shares are of all models together. See `find_limit` for the limits."""
    members, everything = shadows.members, [form(shadows) for form in FORMS]
    kept = _take_halves(members.shape[1])
    best = np.empty((len(kept), *members.shape), dtype=bool)  # who is taken for a member
    strict, offline = np.empty_like(best), 0
    for target in range(len(members)):
        others = np.arange(len(members)) != target
        own = Shadows(shadows.scores[others], members[others])
        ranked = [_rank(form(own), own.members) for form in FORMS]
        for number, here in enumerate(kept):
            told = [(ratios[some], inside[some]) for ratios, inside, people in ranked for some in [here[people]]]
            found = [find_threshold(*one) for one in told]
            chosen = max(range(len(FORMS)), key=lambda form: found[form][1])
            ratios, inside = told[chosen]
            best[number, target] = everything[chosen][target] > found[chosen][0]
            strict[number, target] = everything[chosen][target] > np.quantile(ratios[~inside], 1 - FALSE_POSITIVES)
            offline += number == 0 and FORMS[chosen] is stand_out
    true, at_few = (_share(hits, kept[:, None] & members) for hits in (best, strict))
    false, few = (_share(hits, kept[:, None] & ~members) for hits in (best, strict))
    return Attack(
        models=len(members),
        people=members.shape[1],
        true_positives=float(true.shares[0]),
        false_positives=float(false.shares[0]),
        advantage=float(true.shares[0] - false.shares[0]),
        advantage_upper95=find_limit(true.shares - false.shares, true.errors - false.errors),
        tpr_at_fpr1=float(at_few.shares[0]),
        tpr_at_fpr1_upper95=find_limit(at_few.shares, at_few.errors),
        fpr_at_fpr1=float(few.shares[0]),
        offline=offline / len(members),
    )


def _take_halves(people: int) -> Flags:
    """Everybody, then random halves of the people (1 + HALVES, N), each of which is followed by the other half."""
    generator = np.random.default_rng(1)
    halves = [generator.permutation(people) < people // 2 for _ in range(HALVES // 2)]
    return np.stack([np.ones(people, dtype=bool), *(part for half in halves for part in (half, ~half))])


@dataclass(frozen=True)
class _Shares:
    """Shares of everybody and of each half of the people, and what each entry (M, N) adds to the first's error."""

    shares: Floats
    errors: Floats


def _share(hits: Flags, of: Flags) -> _Shares:
    """Of those who are `of` (1 + HALVES, M, N) the hits."""
    shares = (hits & of).sum(axis=(1, 2)) / of.sum(axis=(1, 2))
    return _Shares(shares, of[0] * (hits[0] - shares[0]) / of[0].sum())


def find_limit(estimates: Floats, errors: Floats) -> float:
    """The one-sided upper limit of the first estimate; the others are those of halves of the people.

    People's part of the variance is a delete-half jackknife's: a half's estimate is as far from everybody's as that is
    from the truth. Form and threshold are chosen anew each time, and jump: with few people left out at a time the
    variance would be far off (Shao & Wu 1989). Models' is that of their sums of `errors` (M, N), less what single
    entries bring, which is people's, too (Cameron, Gelbach & Miller 2011).
    """
    of_people = float(((estimates[1:] - estimates[0]) ** 2).mean())
    models = len(errors)
    of_models = models / (models - 1) * float((errors.sum(axis=1) ** 2).sum()) - float((errors**2).sum())
    freedom = min(len(estimates), models) - 1
    return float(estimates[0] + t.ppf(CONFIDENCE, freedom) * np.sqrt(of_people + max(0.0, of_models)))


def leave_one_out(shadows: Shadows) -> Floats:
    """Log likelihood ratios (M, N), in nats: in against out, by the normal distributions of all other models."""
    scores, ratios = shadows.scores - shadows.scores.mean(axis=0), np.zeros(shadows.scores.shape)
    for of, sign in ((shadows.members, 1), (~shadows.members, -1)):
        means, variances = _describe_others(scores, of)
        ratios -= sign * 0.5 * ((scores - means) ** 2 / variances + np.log(variances))
    return ratios


def stand_out(shadows: Shadows) -> Floats:
    """How far each score (M, N) lies above those of all other models without the person, in their sds."""
    scores = shadows.scores - shadows.scores.mean(axis=0)
    means, variances = _describe_others(scores, ~shadows.members)
    above: Floats = (scores - means) / np.sqrt(variances)
    return above


FORMS = (leave_one_out, stand_out)


def _describe_others(scores: Floats, of: Flags) -> tuple[Floats, Floats]:
    """Means and variances (M, N) of the others' scores, of those that are `of` the kind."""
    counts = of.sum(axis=0) - of
    sums, squares = ((power * of).sum(axis=0) - power * of for power in (scores, scores**2))
    means = sums / counts
    return means, np.maximum((squares - counts * means**2) / (counts - 1), LEAST_VARIANCE)


def _rank(ratios: Floats, members: Flags) -> tuple[Floats, Flags, Integers]:
    """Ratios (M N) falling, whether each is a member's, and whose it is."""
    order = np.argsort(-ratios, axis=None)
    return ratios.ravel()[order], members.ravel()[order], order % ratios.shape[1]


def find_threshold(ratios: Floats, inside: Flags) -> tuple[float, float]:
    """Of falling ratios the one above which true positives exceed false ones by the most, and by how much."""
    gained = np.cumsum(np.where(inside, 1 / inside.sum(), -1 / (~inside).sum()))
    place = int(gained.argmax())
    return float(ratios[min(place + 1, len(ratios) - 1)]), float(gained[place])
