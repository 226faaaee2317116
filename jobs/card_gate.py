"""The model card's section on the gate: what is asked of a model before it may come into force, and the answers."""

from collections.abc import Mapping
from typing import Any

from jobs.card_parts import Measurements, Section, Table, Words, count, number, percent, say
from model.fairness import WORST_BIAS, WORST_COVERAGE
from model.gate import COVERAGE_TOLERANCE, LARGEST_RANK_DEVIATION, NOISE, WORST_LOSS
from model.predicting import COVERAGE


def show_gate(m: Measurements) -> Section | None:
    """None for a model that was never judged."""
    if not m.gate:
        return None
    measures, reasons = m.gate["measures"], m.gate["reasons"]
    blocks: list[Words | Table] = [
        say("The model passed." if not reasons else "The model fell short: " + "; ".join(reasons) + "."),
        _show_coverage(measures["coverage"]),
        Table(
            "Simulation-based calibration: largest deviation of the places of true traits in their posteriors from a "
            f"uniform distribution, at most {LARGEST_RANK_DEVIATION} and what chance adds.",
            ["Trait", "Deviation"],
            [[m.label_trait(key), number(deviation, 3)] for key, deviation in measures["ranks"].items()],
        ),
    ]
    if comparisons := measures.get("comparisons"):
        blocks += [_show_comparisons(m, comparisons), _tell_growth(measures["fairness_growth"])]
    if link := measures["link"]:
        drifted = ", ".join(m.label_item(key) for keys in link["drifted"].values() for key in keys) or "none"
        blocks.append(
            say(
                "Link to the reference population: items that behave otherwise than there, and were given a place of "
                f"their own: {drifted}."
            )
        )
    return Section("gate", "Whether it may come into force", blocks)


def _show_coverage(bands: list[Mapping[str, Any]]) -> Table:
    return Table(
        f"Share of hidden answers of held-out people in the middle {percent(COVERAGE, 0)} of what the model foretold. "
        f"It may be off by {percent(COVERAGE_TOLERANCE, 0)} and {NOISE:.0f} standard errors.",
        ["Level of the trait", "Answers", "Covered", "Standard error"],
        [[band["level"], count(band["answers"]), percent(band["covered"]), percent(band["se"], 2)] for band in bands],
    )


def _show_comparisons(m: Measurements, comparisons: list[Mapping[str, Any]]) -> Table:
    return Table(
        "Against the model that was in force: how much more a hidden answer costs (nats), on the same answers of the "
        f"same held-out people. More than {WORST_LOSS} for everybody, or surely more for any group, is too much "
        "(one-sided p for a loss above that, before Holm's adjustment).",
        ["Group", "People", "Difference", "Standard error", "p"],
        [
            [
                _label_group(m, c["group"]),
                count(c["people"]),
                number(c["difference"], 4),
                number(c["se"], 4),
                number(c["p"], 3),
            ]
            for c in comparisons
        ],
    )


def _tell_growth(growths: list[Mapping[str, Any]]) -> Words:
    most = max(growths, key=lambda growth: growth["growth"] / growth["margin"], default=None)
    told = "No group had people enough for that."
    if most:
        told = (
            f"The nearest to that came {most['measure']} for {most['group']}, further off by "
            f"{number(most['growth'], 3)} of {number(most['margin'], 3)}."
        )
    return say(
        "Nor may predictions become less fair: for no group may the share of hidden answers covered be surely further "
        f"from {percent(COVERAGE, 0)} than the champion's by more than {percent(WORST_COVERAGE, 0)}, nor the bias of "
        f"an expected total surely larger by more than {WORST_BIAS:g} of its root mean square error (one-sided, after "
        f"Holm's adjustment). {told}"
    )


def _label_group(m: Measurements, name: str) -> str:
    """sex=female in the codebook's words."""
    key, _, group = name.partition("=")
    cohort = next((cohort for cohort in m.book.cohorts if cohort.key == key), None)
    return f"{cohort.label or key}: {cohort.read_group(group)}" if cohort else "Everybody"
