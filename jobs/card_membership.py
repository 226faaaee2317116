"""The model card's section on what a model gives away about who it was trained on."""

from jobs.card_parts import Measurements, Section, Table, Words, number, percent, say
from model.membership import CONFIDENCE, FALSE_POSITIVES

COMMAND = "mindcensus measure-membership"


def show_membership(m: Measurements) -> Section:
    found = m.membership
    if found is None:
        told: list[Words | Table] = [say(f"Not measured: `{COMMAND}` measures it and writes it here.")]
    else:
        told = [
            say(
                f"{found.models} models were trained as this one is, but anew, each on a random half of "
                f"{found.people:,} people. An attacker who has a model, a person's answers and the other models as "
                "shadows guesses from the likelihood of the answers whether the person was in that half (likelihood "
                "ratio attack, LiRA, online; Carlini et al. 2022). Thresholds are fixed on the shadows. Upper limits "
                f"are one-sided, {percent(CONFIDENCE, 0)}, of a two-way bootstrap over people and models. A model of "
                "everybody gives away less of each than one of half of them."
            ),
            Table(
                "Advantage: true less false positives, at the threshold that tells shadows apart best; 0 is guessing.",
                ["", "Figure", "Upper limit"],
                [
                    ["Advantage", number(found.advantage, 4), number(found.advantage_upper95, 4)],
                    ["True positives", percent(found.true_positives), ""],
                    ["False positives", percent(found.false_positives), ""],
                    [
                        f"True positives at {percent(FALSE_POSITIVES, 0)} false ones",
                        percent(found.tpr_at_fpr1, 2),
                        percent(found.tpr_at_fpr1_upper95, 2),
                    ],
                    ["False positives there", percent(found.fpr_at_fpr1, 2), ""],
                ],
            ),
        ]
    return Section("membership", "What it gives away about who was in it", told)
