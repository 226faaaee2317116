"""`mindcensus person`: the analysis of one person, or of everybody, written to `restricted/analyses`.

Who asks says why, and each person whose answers are read is noted in the access log before.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from jobs.analyses import FOLDER, SUMMARY, name_analysis, remove_analyses
from jobs.analysing import Analysis, Desk
from jobs.audit import check_reason, log_access
from jobs.catalog import find_files
from jobs.errors import StageError, UsageError
from jobs.lake import write_atomically
from jobs.person_page import read_person_words, render_analysis, render_everybody, tell_limits
from jobs.withdrawn import check_stays, read_withdrawn
from jobs.words import LANGUAGES
from model.multiplicity import adjust_false_discoveries
from model.spec import PERSON

FALSE_SHARE = 0.1  # of early warnings: a screening, where a miss is the worse


def analyse_person(desk: Desk, person: str, reason: str | None, language: str) -> Path:
    """Writes one person's page and JSON; returns the page.

    Raises UsageError without a reason, where the person is not in the night or has withdrawn; AuditBroken where the
    access log is damaged, StageError where a night is published meanwhile.
    """
    log_access(desk.lake, "person", [person], check_reason(reason))
    check_stays(desk.lake, person)
    found = list(desk.analyse([person]))
    if not found:
        raise UsageError(
            f"nobody in the night of {desk.manifest['run_date']}, the last published one, has this pseudonym: only "
            "people who are in it, and so have agreed, are shown their results"
        )
    page = write_analysis(desk, found[0], language)
    _check_newest(desk, [person])
    return page


def analyse_everybody(desk: Desk, reason: str | None, language: str) -> Path:
    """Writes everybody's pages, and a summary that names those first who need to be seen first; returns it.

    Raises UsageError where the care file names nobody who answers for what is found, StageError where a night is
    published meanwhile.
    """
    if desk.care.responsible is None:
        raise UsageError(
            "--everybody tells of people who have not asked: the care file has to name who looks at it, and how soon, "
            "by `responsible: {clinician: …, responds_within_hours: …}`"
        )
    files = [str(file) for file in find_files(desk.lake.root, desk.manifest, "profiles")]
    withdrawn = set(read_withdrawn(desk.lake))
    everybody = ds.dataset(files, format="parquet").to_table([PERSON])[PERSON].to_pylist()
    people = sorted(person for person in everybody if person not in withdrawn)
    log_access(desk.lake, "person --everybody", people, check_reason(reason))
    responsible = desk.care.responsible.model_dump()
    told = []
    for one in desk.analyse(people):
        page = write_analysis(desk, {**one, "responsible": responsible}, language)
        told.append(_summarise(one, page))
    warn_early(told)
    told.sort(key=lambda one: (not one["risk_present"], not one["warned"], not one["risk_unanswered"], one["page"]))
    folder = _night_folder(desk)
    summary = {"run_date": desk.manifest["run_date"], "responsible": responsible, "people": told}
    write_atomically(folder / f"{SUMMARY}.json", json.dumps(summary, indent=1, ensure_ascii=False))
    target = folder / f"{SUMMARY}.html"
    write_atomically(target, render_everybody(summary, desk.book, language))
    _check_newest(desk, people)
    return target


def _check_newest(desk: Desk, people: Sequence[str]) -> None:
    """Raises StageError, and removes the people's pages, where another night was published since the desk was opened.

    Its publication has looked for pages of people who are not in it, and may have looked before these were there.
    """
    if desk.lake.manifests()[-1]["token"] != desk.manifest["token"]:
        remove_analyses(desk.lake, people)
        raise StageError("a night was published while pages were made: these are removed, ask for them again")


def warn_early(people: list[dict[str, Any]]) -> None:
    """Sets `warned`: the traits of each person that have risen beyond chance since their last earlier answers.

    Of all that are named, FALSE_SHARE at most are so by chance (Benjamini & Hochberg 1995), over everybody's traits.
    """
    tests = [(one, trait, p) for one in people for trait, p in one.pop("p_rise").items()]
    adjusted = adjust_false_discoveries([p for _, _, p in tests])
    for one in people:
        one["warned"] = []
    for (one, trait, _), p in zip(tests, adjusted, strict=True):
        if p <= FALSE_SHARE:
            one["warned"].append(trait)


def write_analysis(desk: Desk, analysis: Analysis, language: str) -> Path:
    """The person's JSON and page, each replaced in one step; returns the page."""
    name = name_analysis(analysis[PERSON])
    folder = _night_folder(desk)
    limits = {one: tell_limits(analysis, read_person_words(desk.book, one)) for one in LANGUAGES}
    told = json.dumps({**analysis, "limits": limits}, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / f"{name}.json", told)
    page = folder / f"{name}.{language}.html"
    write_atomically(page, render_analysis(analysis, desk.book, language))
    return page


def _night_folder(desk: Desk) -> Path:
    folder = desk.lake.restricted / FOLDER / f"run_date={desk.manifest['run_date']}"
    for part in (folder.parent, folder):
        part.mkdir(mode=0o700, exist_ok=True)
    return folder


def _summarise(analysis: Analysis, page: Path) -> dict[str, Any]:
    last = {trait["trait"]: trait["changes"][0] for trait in analysis["traits"] if trait["changes"]}
    return {
        "person_id": analysis[PERSON],
        "page": page.name,
        "risk_present": any(one["answer"] is not None for one in analysis["risk"]),
        "risk_unanswered": any(one["answer"] is None for one in analysis["risk"]),
        "p_rise": {trait: change["p_rise"] for trait, change in last.items() if change["reliable"]},
        "advice": [one["rule"] for one in analysis["advice"]],
    }
