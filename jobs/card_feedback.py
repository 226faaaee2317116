"""The model card's section on feedback: what clinicians found, beside the scale's cut."""

from typing import Any

from jobs.card_parts import Measurements, Section, Table, count_enough, percent, say
from jobs.verification import FEWEST

WORDS = {
    "sensitivity": "Sensitivity: cases that the cut finds",
    "specificity": "Specificity: others that it clears",
    "positive_predictive_value": "Of those at the cut, cases",
    "negative_predictive_value": "Of the others, no cases",
    "prevalence": "Cases",
}


def show_feedback(m: Measurements) -> Section | None:
    """None where no clinician confirms anything."""
    if m.verification is None or m.book.feedback is None or m.book.feedback.confirmed is None:
        return None
    told: dict[str, Any] = m.verification.to_json()
    scale = m.book.scale(m.book.feedback.confirmed.scale)
    name = scale.label or scale.key
    looked_at = say(
        f"Clinicians looked at {count_enough(told['verified'])} people with a total of {name}, and found "
        f"{count_enough(told['cases'])} of them to be at the cut ({_word_cut(scale.cut or '')}) by severity. The "
        "published cut does not move for it."
    )
    if told["accuracy"] is None:
        few = say(
            f"Too few to compare the cut with: {FEWEST} cases, {FEWEST} others, and {FEWEST} people on either side of "
            "it are needed."
        )
        return Section("feedback", "What clinicians found", [looked_at, few])
    rows = [
        [
            WORDS[key],
            percent(figure["verified"]),
            percent(figure["corrected"]),
            f"{percent(figure['low'])} to {percent(figure['high'])}",
        ]
        for key, figure in told["accuracy"].items()
    ]
    return Section("feedback", "What clinicians found", [
        looked_at,
        say("Who is looked at has mostly a high total, so figures of these people alone are biased. The corrected ones "
            "take a case to be as likely among the others with the same total (Begg and Greenes 1983; logistic "
            "regression on the total, Firth 1993), which holds where the choice of whom to look at hangs on the total "
            f"alone; of the {percent(told['beyond'])} of people whose totals lie beyond those of everybody who was "
            "looked at, the regression's form alone tells."
            + (" How closely the severity goes along with the traits stands among the covariates."
               if m.report["covariates"] else "")),
        Table("The cut against what clinicians found.",
              ["", "Those looked at", "Everybody, corrected", "95 % interval"], rows),
    ])  # fmt: skip


def _word_cut(cut: str) -> str:
    """≥ 10, without a sign that Markdown and HTML read as their own."""
    return f"{'≥' if cut.startswith('>') else '≤'} {cut[2:]}"
