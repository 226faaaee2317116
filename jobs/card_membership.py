"""The model card's sections on what a model gives away about who it was trained on: promised, and measured."""

from jobs.card_parts import Measurements, Section, Table, Words, number, percent, say
from model.membership import CONFIDENCE, FALSE_POSITIVES

COMMAND = "mindcensus measure-membership"


def show_privacy(m: Measurements) -> Section | None:
    """None for a model that was trained without differential privacy."""
    if not (told := m.report.get("privacy")):
        return None
    return Section("privacy", "Differential privacy", [
        say(
            "Items, population and encoder were trained under differential privacy (DP-SGD; Abadi and others 2016): "
            "whether any one person was among those it was trained on changes the probability of any model by a factor "
            "of at most e to the power of epsilon, but for a chance of delta. Norms are of people whom it simulates. "
            "The figures of this card are of real people, and not promised for; nor is whether the model came into "
            "force."
        ),
        Table("What it cost, and by what (Opacus).", ["What", "Value"], [
            ["Epsilon", f"{told['epsilon']:g}"],
            ["Delta", f"{told['delta']:g}"],
            ["Largest norm of a person's gradient", f"{told['clip']:g}"],
            ["Survey weight that counts as 1", f"{told['weight']:g}"],
            ["Noise multiplier", number(told["noise_multiplier"], 3)],
            ["Chance of a person to be in a step", f"{told['sample_rate']:g}"],
            ["Steps", str(told["steps"])],
        ], text=True),
    ])  # fmt: skip


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
                "ratio attack, LiRA; Carlini et al. 2022), in the form, online or offline, and with the threshold that "
                "serve best on the shadows. Upper limits "
                f"are one-sided, {percent(CONFIDENCE, 0)}, of a jackknife over groups of people, each time with form "
                "and threshold chosen anew, and of the spread between models. A model of everybody gives away less of "
                "each than one of half of them."
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
