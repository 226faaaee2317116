"""Membership inference: how well an attacker with a model tells who it was trained on, by likelihood ratios.

LiRA, online (Carlini et al. 2022): of each person, normal distributions of the score under models that were trained
with them and without; a model's ratio of the two says whether they were in. Every model is the target once, the others
are its shadows: they give the distributions, and the thresholds, which are then applied to the target as they are.
Shapes: M models, N people, B draws of the bootstrap.
"""

from dataclasses import dataclass

import numpy as np

from model.shadows import Flags, Floats, Shadows

FALSE_POSITIVES = 0.01
CONFIDENCE = 0.95
DRAWS = 2_000
LEAST_VARIANCE = 1e-12
SEED = 1


@dataclass(frozen=True)
class Attack:
    """Of everybody: shares of true and false positives at the threshold that told shadows apart best, their difference
    (`advantage`) with its one-sided upper limit, and true positives where shadows have 1 % of false ones.
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


def attack(shadows: Shadows) -> Attack:
    """Every model in turn; shares are of all models together.

    The limits are those of a two-way bootstrap, over people and over models, which errs on the wide side (Owen 2007).
    """
    ratios, members = leave_one_out(shadows), shadows.members
    best, strict = np.empty(members.shape, dtype=bool), np.empty(members.shape, dtype=bool)
    for target in range(len(members)):
        others = np.arange(len(members)) != target
        own = Shadows(shadows.scores[others], members[others])
        told = leave_one_out(own)
        best[target] = ratios[target] > find_threshold(told, own.members)
        strict[target] = ratios[target] > np.quantile(told[~own.members], 1 - FALSE_POSITIVES)
    random = np.random.default_rng(SEED)
    models, people = members.shape
    by_model = random.multinomial(models, np.full(models, 1 / models), DRAWS).T.astype(np.float64)
    by_person = random.multinomial(people, np.full(people, 1 / people), DRAWS).T.astype(np.float64)

    def share(hits: Flags, of: Flags) -> Floats:
        """Of the sample itself (first), then of every draw."""
        counts = []
        for flags in (hits & of, of):
            drawn = (by_model * (flags.astype(np.float64) @ by_person)).sum(axis=0)
            counts.append(np.concatenate([[float(flags.sum())], drawn]))
        found: Floats = counts[0] / counts[1]
        return found

    true, false = share(best, members), share(best, ~members)
    at_few, few = share(strict, members), share(strict, ~members)
    return Attack(
        models=models,
        people=people,
        true_positives=float(true[0]),
        false_positives=float(false[0]),
        advantage=float(true[0] - false[0]),
        advantage_upper95=float(np.quantile((true - false)[1:], CONFIDENCE)),
        tpr_at_fpr1=float(at_few[0]),
        tpr_at_fpr1_upper95=float(np.quantile(at_few[1:], CONFIDENCE)),
        fpr_at_fpr1=float(few[0]),
    )


def leave_one_out(shadows: Shadows) -> Floats:
    """Log likelihood ratios (M, N), in nats: in against out, by the normal distributions of all other models."""
    scores, members = shadows.scores - shadows.scores.mean(axis=0), shadows.members
    inside, outside = (_log_density(scores, of) for of in (members, ~members))
    ratios: Floats = inside - outside
    return ratios


def _log_density(scores: Floats, of: Flags) -> Floats:
    """Log density (M, N) of each score under the normal distribution of the others that are `of` the kind."""
    counts = of.sum(axis=0) - of
    sums, squares = ((power * of).sum(axis=0) - power * of for power in (scores, scores**2))
    means = sums / counts
    variances = np.maximum((squares - counts * means**2) / (counts - 1), LEAST_VARIANCE)
    density: Floats = -0.5 * ((scores - means) ** 2 / variances + np.log(variances))
    return density


def find_threshold(ratios: Floats, members: Flags) -> float:
    """The ratio above which true positives exceed false ones by the most."""
    order = np.argsort(-ratios, axis=None)
    inside = members.ravel()[order]
    gained = np.cumsum(np.where(inside, 1 / inside.sum(), -1 / (~inside).sum()))
    return float(ratios.ravel()[order][min(int(gained.argmax()) + 1, len(order) - 1)])
