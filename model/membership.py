"""Membership inference: how well an attacker with a model tells who it was trained on, by likelihood ratios.

LiRA (Carlini et al. 2022): of each person, normal distributions of the score under models that were trained with them
and without. Online, a model's ratio of the two says whether they were in; offline, how far it lies above those without.
Every model is the target once, the others are its shadows: they give the distributions, and of both forms of the attack
the one that tells shadows apart better, with its threshold, which is then applied to the target as it is.
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
    """Every model in turn; shares are of all models together.

    The limits are those of a two-way bootstrap, over people and over models, which errs on the wide side (Owen 2007).
    """
    members, everything = shadows.members, [form(shadows) for form in FORMS]
    best, strict = np.empty(members.shape, dtype=bool), np.empty(members.shape, dtype=bool)
    offline = 0
    for target in range(len(members)):
        others = np.arange(len(members)) != target
        own = Shadows(shadows.scores[others], members[others])
        told = [form(own) for form in FORMS]
        found = [find_threshold(ratios, own.members) for ratios in told]
        chosen = max(range(len(FORMS)), key=lambda form: found[form][1])
        offline += FORMS[chosen] is stand_out
        best[target] = everything[chosen][target] > found[chosen][0]
        strict[target] = everything[chosen][target] > np.quantile(told[chosen][~own.members], 1 - FALSE_POSITIVES)
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
        offline=offline / models,
    )


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


def find_threshold(ratios: Floats, members: Flags) -> tuple[float, float]:
    """The ratio above which true positives exceed false ones by the most, and by how much."""
    order = np.argsort(-ratios, axis=None)
    inside = members.ravel()[order]
    gained = np.cumsum(np.where(inside, 1 / inside.sum(), -1 / (~inside).sum()))
    place = int(gained.argmax())
    return float(ratios.ravel()[order][min(place + 1, len(order) - 1)]), float(gained[place])
