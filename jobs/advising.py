"""Which advice follows from a person's answers, and how answers and advice are told."""

from collections.abc import Mapping, Sequence
from typing import Any

from expectations.care import Advice
from expectations.codebook import Codebook
from expectations.codebook_parts import Item
from model.spec import MISSING

Row = dict[str, Any]


def choose_advice(
    advice: Sequence[Advice], book: Codebook, profile: Row, codes: Mapping[str, int], traits: Sequence[Row]
) -> list[Advice]:
    """The advice whose condition holds: what concerns harm first, then changes for the worse, then the others.

    A change is the one since the last earlier occasion.
    """
    risk = [codes[item.key] for item in book.items if item.risk]
    clear = {trait["scale"]["scale"]: trait["changes"][0]["clear"] for trait in traits if trait["changes"]}

    def holds(one: Advice) -> bool:
        rule = one.rule
        if rule.risk:
            return any(place == MISSING if rule.risk == "unanswered" else place > 0 for place in risk)
        if rule.item is not None and rule.at_least is not None:
            answer = tell_answer(book.item(rule.item), codes[rule.item])["answer"]
            return answer is not None and answer >= rule.at_least
        if rule.change:
            return rule.scale is not None and clear.get(rule.scale) == rule.change
        return profile[f"{rule.scale}_band"] in rule.bands

    ordered = sorted(advice, key=lambda one: (one.rule.risk is None, one.rule.change != "risen"))
    return [one for one in ordered if holds(one)]


def tell_answer(item: Item, position: int) -> Row:
    """An answer by its code as delivered; `above_lowest` is of the score that it adds."""
    codes = list(reversed(item.levels)) if item.reversed else list(item.levels)
    return {
        "item": item.key,
        "label": item.label or item.key,
        "answer": None if position == MISSING else codes[position],
        "lowest": item.levels[0],
        "highest": item.levels[-1],
        "above_lowest": position > 0,
    }


def tell_advice(one: Advice) -> Row:
    rule = one.rule
    condition = rule.model_dump(include={"scale", "bands", "change", "item", "at_least", "risk"}, exclude_none=True)
    return {
        "rule": rule.key,
        "condition": {name: value for name, value in condition.items() if value != ()},
        "say": rule.say.model_dump(),
        "source": rule.source,
        "table": one.table,
        "table_sha256": one.sha256,
        "reviewer": one.reviewer,
        "reviewed_on": one.reviewed_on.isoformat(),
    }
