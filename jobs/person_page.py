"""A person's analysis as one page in words: self-contained, without scripts, to be read on a screen or on paper."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any

from markupsafe import Markup, escape

from expectations.codebook import Codebook
from jobs.pages import render_page
from jobs.words import LANGUAGES, Words, read_messages, read_words

Row = Mapping[str, Any]

TRACK, LEFT, HEIGHT = 600, 10, 34  # of a chart, in its own pixels
LIMITS = ("diagnosis", "time", "forecast", "traits", "comparison", "interval", "causes", "decision")
REFERENCE_CHARACTERS = 12  # of the pseudonym: enough to tell two prints apart


def render_analysis(analysis: Row, book: Codebook, language: str) -> str:
    """The page. The same analysis gives the same bytes."""
    words = read_person_words(book, language)
    answered_at = analysis["answered_at"]
    return render_page(
        "person.html.j2",
        words=words,
        analysis=analysis,
        responsible=analysis.get("responsible"),
        reference=analysis["person_id"][:REFERENCE_CHARACTERS],
        title=words.name(book.title),
        night=words.date(date.fromisoformat(analysis["run_date"])),
        answered_on=words.date(datetime.fromisoformat(answered_at).date()) if answered_at else None,
        risk=[show_risk(one, words) for one in analysis["risk"]],
        risk_present=any(one["answer"] is not None for one in analysis["risk"]),
        # Nobody knows who is at risk where no question asks: help stands first then, too.
        help_first=not any(item.risk for item in book.items),
        traits=[show_trait(trait, book, words) for trait in analysis["traits"]],
        advice=[show_advice(one, book, words) for one in analysis["advice"]],
        limits=tell_limits(analysis, words),
    )


def render_everybody(summary: Row, book: Codebook, language: str) -> str:
    """The list for the clinician: who needs to be seen first stands first. A page's name leads to it."""
    words = read_person_words(book, language)
    labels = {trait.key: words.name(trait.label or trait.key) for trait in book.traits}
    return render_page(
        "everybody.html.j2",
        words=words,
        title=words.name(book.title),
        night=words.date(date.fromisoformat(summary["run_date"])),
        responsible=summary["responsible"],
        people=[
            {
                "page": one["page"],
                "reference": one["person_id"][:REFERENCE_CHARACTERS],
                "risk": words.say(
                    "list_risk" if one["risk_present"] else "list_open" if one["risk_unanswered"] else "dash"
                ),
                "warned": words.say("list_comma").join(labels[key] for key in one["warned"]) or words.say("dash"),
            }
            for one in summary["people"]
        ],
    )


def read_person_words(book: Codebook, language: str) -> Words:
    """The words of these pages, and the codebook's own, in one language."""
    messages, _ = read_messages(f"person.{language}")
    words = read_words(book)[list(LANGUAGES).index(language)]
    return replace(words, messages=messages, phrases={})


def tell_limits(analysis: Row, words: Words) -> list[str]:
    """What the analysis does not say."""
    return [words.say(f"limit_{name}", traits=list_traits(analysis, words)) for name in LIMITS]


def list_traits(analysis: Row, words: Words) -> str:
    return words.say("list_comma").join(words.name(trait["label"]).lower() for trait in analysis["traits"])


def show_risk(one: Row, words: Words) -> str:
    key = "risk_unanswered" if one["answer"] is None else "risk_present"
    return words.say(
        key, question=words.name(one["label"]), answer=one["answer"], lowest=one["lowest"], highest=one["highest"]
    )


def show_trait(trait: Row, book: Codebook, words: Words) -> dict[str, Any]:
    """A trait's card: sentences, the chart of each comparison, answers and changes."""
    scale = trait["scale"]
    asked = words.say("trait_asked", answered=scale["answered"], items=scale["items"])
    rows = [(words.say("reference"), trait["reference"])]
    if trait["group"] is not None:
        rows.append((name_group(trait["group"]["cohorts"], book, words), trait["group"]))
    return {
        "key": trait["trait"],
        "label": words.name(trait["label"]),
        "sentence": show_standing(trait["reference"], words),
        "ranks": [show_rank(name, rank, words) for name, rank in rows if rank["percentile"] is not None],
        "scale": show_scale(scale, words),
        "asked": asked if scale["answered"] else words.say("trait_inferred"),
        "answers": [show_answer(one, words) for one in trait["answers"]],
        "changes": [show_change(one, words) for one in trait["changes"]],
    }


def show_standing(rank: Row, words: Words) -> str:
    if rank["percentile"] is None:
        return words.say("standing_unknown")
    return words.say(
        "standing",
        value=count_hundred(rank["percentile"]),
        low=count_hundred(rank["low"]),
        high=count_hundred(rank["high"]),
    )


def show_rank(name: str, rank: Row, words: Words) -> dict[str, Any]:
    value, low, high = (count_hundred(rank[part]) for part in ("percentile", "low", "high"))
    told = words.say("rank", value=value, low=low, high=high)
    return {"name": name, "told": told, "chart": draw_rank(rank, words.say("rank_alt", name=name, told=told))}


def count_hundred(percentile: float) -> int:
    """People of a hundred: never none and never all."""
    return min(99, max(1, round(percentile)))


def draw_rank(rank: Row, alt: str) -> Markup:
    """From 0 to 100: the interval as a bar, the person as a dot, quarters as ticks."""
    value, low, high = (LEFT + (TRACK - 2 * LEFT) * rank[part] / 100 for part in ("percentile", "low", "high"))
    middle = HEIGHT / 2
    ticks = [LEFT + (TRACK - 2 * LEFT) * share / 4 for share in range(5)]
    marks = "".join(
        f'<line class="tick" x1="{x:g}" x2="{x:g}" y1="{middle - 9:g}" y2="{middle + 9:g}"/>' for x in ticks
    )
    return Markup(
        f'<svg class="rank" viewBox="0 0 {TRACK} {HEIGHT}" role="img" aria-label="{escape(alt)}">'
        f'<line class="track" x1="{LEFT}" x2="{TRACK - LEFT}" y1="{middle:g}" y2="{middle:g}"/>{marks}'
        f'<line class="span" x1="{low:.1f}" x2="{high:.1f}" y1="{middle:g}" y2="{middle:g}"/>'
        f'<circle class="dot" cx="{value:.1f}" cy="{middle:g}" r="8"/></svg>'
    )


def show_scale(scale: Row, words: Words) -> str:
    name = words.name(scale["label"])
    if scale["total"] is None:
        return words.say("scale_unknown", name=name)
    total = words.number(scale["total"], 0 if float(scale["total"]).is_integer() else 1)
    values = {"name": name, "total": total, "highest": words.number(scale["highest"], 0)}
    better = words.say("scale_positive") if scale["positive"] else ""
    better += show_confirmed(scale, words)
    if scale["band"] is None:
        return words.say("scale_plain", **values) + better
    return words.say("scale_band", **values, band=words.name(scale["band"])) + better


def show_confirmed(scale: Row, words: Words) -> str:
    """What clinicians found of people with as many points, beside the published range and never instead of it."""
    if (found := scale.get("confirmed")) is None:
        return ""
    value, low, high = (count_hundred(100 * found[part]) for part in ("probability", "low", "high"))
    return words.say("scale_confirmed", value=value, low=low, high=high, band=words.name(found["band"]))


def show_answer(one: Row, words: Words) -> dict[str, Any]:
    raises = one["moved"] > 0
    return {
        "question": words.name(one["label"]),
        "answer": words.say("answer", answer=one["answer"], lowest=one["lowest"], highest=one["highest"]),
        "raises": raises,
        "effect": words.say("raises" if raises else "lowers"),
        "moved": words.number(one["moved"], 2, signed=True),
    }


def show_change(one: Row, words: Words) -> dict[str, Any]:
    since = words.date(datetime.fromisoformat(one["since"]).date())
    if not one["reliable"]:
        return {"clear": None, "told": words.say("change_unknown", since=since)}
    low, high = (words.number(one[part], 1, signed=True) for part in ("low", "high"))
    interval = words.say("to", low=low, high=high)
    key = f"change_{one['clear'] or 'unclear'}"
    return {
        "clear": one["clear"],
        "told": words.say(key, since=since, value=words.number(one["median"], 1, signed=True), interval=interval),
    }


def show_advice(one: Row, book: Codebook, words: Words) -> dict[str, Any]:
    reviewed = words.date(date.fromisoformat(one["reviewed_on"]))
    return {
        "say": one["say"][words.language],
        "because": name_condition(one["condition"], book, words),
        "urgent": "risk" in one["condition"],
        "source": words.say("advice_source", source=one["source"], reviewer=one["reviewer"], date=reviewed),
    }


def name_condition(condition: Row, book: Codebook, words: Words) -> str:
    """Why something is advised."""
    if risk := condition.get("risk"):
        return words.say(f"because_{risk}")
    if item := condition.get("item"):
        return words.say("because_item", question=words.name(book.item(item).label or item))
    scale = book.scale(condition["scale"])
    if change := condition.get("change"):
        trait = next(trait for trait in book.traits if trait.scale == scale.key)
        return words.say(f"because_{change}", trait=words.name(trait.label or trait.key))
    bands = words.say("list_comma").join(words.name(band) for band in condition["bands"])
    return words.say("because_band", scale=words.name(scale.label or scale.key), bands=bands)


def name_group(cohorts: Mapping[str, str], book: Codebook, words: Words) -> str:
    """The group in words, such as Women, 30-44."""
    parts: Sequence[str] = [
        words.name(cohort.read_group(cohorts[cohort.key])) for cohort in book.cohorts if cohort.key in cohorts
    ]
    return words.say("group", group=words.say("list_comma").join(parts))
