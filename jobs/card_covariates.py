"""The model card's section on covariates: what goes along with the traits, and how closely."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from jobs.card_parts import WITHHELD, Measurements, Section, Table, count_enough, number, say
from model.group_costs import FEWEST_PEOPLE

MEASURES = {"continuous": "sds", "count": "ratio of expected counts"}


def show_covariates(m: Measurements) -> Section | None:
    """None where the codebook has no covariates."""
    if not m.report["covariates"]:
        return None
    head = ["Covariate and measure", "People", *(m.label_trait(trait.key) for trait in m.spec.traits), "Gain, nats"]
    rows = [row for covariate in m.report["covariates"] for row in _list_rows(m, covariate)]
    return Section("covariates", "What goes along with the traits", [
        say("Each covariate is regressed on the traits once they are finished, measurement error allowed for; no "
            "profile is made from a covariate. A trait's column says what one sd more of it goes along with, the other "
            "traits held: odds that are multiplied, sds of the covariate that are added, an expected count that is "
            "multiplied. This is association and no cause; cohort estimates, with their design-based intervals, stand "
            "in the report. The gain is how much less the covariate of held-out people costs once their answers are "
            "known, in nats a person: near 0, the answers tell nothing of it."),
        Table("Covariates given the traits.", head, rows),
    ])  # fmt: skip


def _list_rows(m: Measurements, covariate: Mapping[str, Any]) -> Iterator[list[str]]:
    """One row, or one for each level after the first; a level that few people have shows nothing."""
    label = m.label_covariate(covariate["key"])
    margin, cost, slopes = covariate["margin_cost"], covariate["cost"], covariate["slopes"]
    gain = number(None if margin is None or cost is None else margin - cost, 3)
    withheld = [WITHHELD] * len(m.spec.traits)
    levels = list(covariate["people_by_level"].items())
    if not levels:
        turn = math.exp if covariate["kind"] == "count" else float
        figures = [number(turn(slope)) for slope in slopes[0]] if slopes else withheld
        yield [f"{label}: {MEASURES[covariate['kind']]}", count_enough(covariate["people"]), *figures, gain]
        return
    (first, base), *others = levels
    for position, (level, people) in enumerate(others):
        shown = slopes and min(base, people) >= FEWEST_PEOPLE
        figures = [number(math.exp(slope)) for slope in slopes[position]] if shown else withheld
        yield [f"{label}: odds ratio of {level} against {first}", count_enough(people), *figures, gain]
