"""The operator's page: how the nights went, `restricted/nights.html`, made anew whenever one is published.

It lives in the restricted zone, because its counts are exact: nothing on it has passed disclosure control.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from jobs.attempts import Attempt, read_attempts
from jobs.errors import DONE
from jobs.lake import ORDER, Lake, write_atomically
from jobs.night_charts import draw_nights, word_figure
from jobs.nights import FATES, Published, Shift, list_published
from jobs.pages import render_page

PAGE = "nights.html"
NIGHTS, LISTED, FAILURES = 60, 14, 40  # the latest in pictures and tables
KILLED = "no end is noted: it was killed, or it is at work"


@dataclass(frozen=True)
class Panel:
    """One picture: its title, what a reader who does not see it hears, and the drawing."""

    title: str
    words: str
    svg: Markup


def write_night_page(lake: Lake) -> None:
    """Writes the page of the published nights and of what failed up to now; there is at least one night."""
    write_atomically(lake.restricted / PAGE, render_nights(list_published(lake), read_attempts(lake)))


def render_nights(published: Sequence[Published], attempts: Sequence[Attempt]) -> str:
    """The page. The same nights and attempts give the same bytes."""
    nights = published[-NIGHTS:]
    failed = [attempt for attempt in reversed(attempts) if attempt.exit_code != DONE][:FAILURES]
    return render_page(
        "nights.html.j2",
        nights=[_show_night(night) for night in reversed(nights[-LISTED:])],
        last=nights[-1],
        sections=[
            ("time", "How long it took, in seconds", _show_times(nights)),
            ("rows", "Where the rows went", _show_rows(nights)),
            ("drift", "Drift since the model was made", _show_drift(nights)),
        ],
        failed=[(one.run_date, one.stage, one.last_heard[:16].replace("T", " "), *_word_end(one)) for one in failed],
    )


def _show_times(nights: Sequence[Published]) -> list[Panel]:
    panels = [_draw("all stages but publish", nights, [sum(night.seconds.values()) for night in nights])]
    for stage in ORDER:
        if any(stage in night.seconds for night in nights):
            panels.append(_draw(stage, nights, [night.seconds.get(stage) for night in nights]))
    return panels


def _show_rows(nights: Sequence[Published]) -> list[Panel]:
    panels = [_draw("delivered", nights, [night.delivered for night in nights])]
    return panels + [_draw(fate, nights, [night.rows[fate] for night in nights]) for fate in FATES]


def _show_drift(nights: Sequence[Published]) -> list[Panel]:
    limit = next((night.drift.limit for night in reversed(nights) if night.drift), None)
    of = {"answers, the furthest item": "answers", "profiles, the furthest trait": "profiles"}
    return [_draw(title, nights, [_find_psi(night, what) for night in nights], limit) for title, what in of.items()]


def _find_psi(night: Published, what: str) -> float | None:
    shift: Shift | None = getattr(night.drift, what) if night.drift else None
    return shift.psi if shift else None


def _draw(title: str, nights: Sequence[Published], values: Sequence[float | None], limit: float | None = None) -> Panel:
    known = [value for value in values if value is not None]
    words = "no figure yet"
    if known:
        last = "none" if values[-1] is None else word_figure(values[-1])
        words = f"last {last}, from {word_figure(min(known))} to {word_figure(max(known))}"
    if limit:
        words += f"; limit {limit:g}"
    name = "n-" + "".join(letter for letter in title if letter.isalnum())
    return Panel(title, words, draw_nights(values, [night.run_date for night in nights], name, limit))


def _show_night(night: Published) -> dict[str, Any]:
    rules = ", ".join(f"{rule} {rows:,}" for rule, rows in sorted(night.set_aside.items()))
    told = [f"trained: {night.trained}"] if night.trained else []
    told += [f"refused: {'; '.join(night.refused)}"] if night.refused else []
    told += [f"warned: {', '.join(night.warnings)}"] if night.warnings else []
    return {
        "night": night,
        "set_aside": f"{night.rows['quarantined']:,}" + (f" ({rules})" if rules else ""),
        "drift": f"{_word_psi(night, 'answers')} / {_word_psi(night, 'profiles')}",
        "told": "; ".join(told),
    }


def _word_psi(night: Published, what: str) -> str:
    psi = _find_psi(night, what)
    return "–" if psi is None else f"{psi:.2f}"


def _word_end(attempt: Attempt) -> tuple[str, str]:
    if attempt.ended_at is None:
        return "–", KILLED
    return str(attempt.exit_code), attempt.sentence or ""
