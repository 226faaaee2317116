"""A simulated survey for care, and pages about people of it: python -m benchmarks.care --out FOLDER [--people N]

People of the demonstration's country agree (or do not) to be shown their own results, and answer twice, four weeks
apart; in between one in ten has got worse by a standard deviation, and one in ten better. Both nights are run by the
real command, a page is made of a person with an answer on self-harm in each language, and everybody is analysed. The
last line is JSON: what the pages say of those who changed, and of those who did not.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from expectations.advising import SHIPPED as ADVICE
from expectations.codebook import find_codebook
from jobs.analyses import FOLDER, SUMMARY, name_analysis
from jobs.demo_model import CODES, ITEMS, build_country, draw_answers, draw_people, spread_over_units
from jobs.demo_rows import COLUMNS, DAY, format_ids, format_lines
from jobs.lake import Lake
from jobs.pseudonym import digest_ids, key_file, read_key

BEFORE, AFTER = date(2026, 3, 1), date(2026, 3, 29)
REFUSING, ANSWERING_AGAIN, CHANGING, CHANGE = 0.03, 0.6, 0.1, 1.0
PURPOSE = "{use: care, lawful_basis: consent, health_ground: explicit_consent, retention_days: 400}"
CONSENT = 'consent: {column: agreed, agreed: ["yes"], refused: ["no"]}'
QUESTIONS = {
    **{
        "interest or pleasure": "兴趣或乐趣",
        "low mood": "情绪低落",
        "sleep": "睡眠",
        "energy": "精力",
        "appetite": "食欲",
    },
    **{"self-worth": "自我价值感", "concentration": "注意力", "pace of moving or speaking": "动作或说话的快慢"},
    **{"thoughts of self-harm": "自我伤害的想法", "nervousness": "紧张", "control of worry": "控制担忧"},
    **{"amount of worry": "担忧的程度", "relaxing": "放松", "restlessness": "坐立不安", "irritability": "易怒"},
    **{"fear": "害怕", "loss of control": "失控感", "confidence": "信心", "things going well": "事情顺利"},
    **{"difficulties piling up": "困难堆积", "cheerfulness": "愉快", "calm": "平静", "vigour": "活力"},
    **{"waking rested": "醒来时精神好", "interest in daily life": "对日常生活的兴趣", "Low well-being": "幸福感低"},
}
CARE = """\
# For a simulated survey: nobody is named here, and the number is of nobody.
help_lines:
  - name: {{en: Example help line, zh: 示例求助热线}}
    number: "000 0000"
    hours: {{en: day and night, zh: 全天}}
    languages: {{en: "English, Chinese", zh: 英语、中文}}
  - name: {{en: Counselling service of the survey, zh: 调查方心理咨询服务}}
    number: "000 0001"
    hours: {{en: "Monday to Friday, 9 to 17", zh: 周一至周五 9 时至 17 时}}
    languages: {{en: English, zh: 英语}}
advice:
{advice}
compare: [sex, age_band]
responsible: {{clinician: the clinician on duty of the simulated survey, responds_within_hours: 24}}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--people", type=int, default=4_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    write_survey(options.out, options.people, options.seed)
    for day in (BEFORE, AFTER):
        run(
            *("run", "--lake", options.out / "lake", "--run-date", day, "--codebook", options.out / "care_demo.yaml"),
            *("--extract", options.out / str(day)),
        )
    told = ("--lake", options.out / "lake", "--care", options.out / "care.yaml", "--reason", "a simulated survey")
    for language in ("en", "zh"):
        run("person", "--id-file", options.out / "one_id", "--lang", language, *told)
    run("person", "--everybody", "--lang", "en", *told)
    print(json.dumps(measure(options.out)))
    return 0


def run(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "jobs.cli", *map(str, arguments)], check=True)


def write_survey(folder: Path, people: int, seed: int) -> None:
    """Codebook, care file and both extracts; `one_id` has the id of somebody for a page, `truth.json` who changed."""
    folder.mkdir(parents=True)
    (folder / "care_demo.yaml").write_text(make_codebook(), encoding="utf-8")
    (folder / "care.yaml").write_text(make_care(("phq9", "gad7", "who5")), encoding="utf-8")
    rng, country = np.random.default_rng(seed), build_country(people)
    rows, traits = draw_people(country, spread_over_units(country, np.arange(people)), rng)
    rows |= {"id": np.arange(people) + 100_000_000, "stratum": country.stratum[rows["unit"]]}
    rows |= {"psu": country.psu[rows["unit"]], "answered_at": -rng.integers(1, 20 * DAY, people)}
    agreed = np.where(rng.random(people) < REFUSING, "no", "yes")
    moved = CHANGE * rng.choice([1, -1, 0], people, p=[CHANGING, CHANGING, 1 - 2 * CHANGING])
    again = rng.random(people) < ANSWERING_AGAIN
    first = draw_answers(rows, traits, rng)
    second = draw_answers(rows, traits + moved[:, None], rng)
    apart = (AFTER - BEFORE).days * DAY
    for day, answers, answered_at in (
        (BEFORE, first, rows["answered_at"]),
        (
            AFTER,
            np.where(again[:, None], second, first),
            np.where(again, rows["answered_at"], rows["answered_at"] - apart),
        ),
    ):
        lines = format_lines({**rows, "answers": answers, "answered_at": answered_at}, country, day)
        (folder / str(day)).mkdir()
        with (folder / str(day) / "people-0000.csv").open("w", encoding="utf-8") as file:
            file.write(",".join((*COLUMNS, "agreed")) + "\n")
            file.writelines(f"{line},{told}\n" for line, told in zip(lines, agreed, strict=True))
    place = list(ITEMS).index("phq9_9")
    adult = (rows["age"] >= 18) & (agreed == "yes")
    telling = np.flatnonzero(adult & again & (moved > 0) & (second[:, place] == CODES.index("1")))
    ids = format_ids(rows["id"]).to_pylist()
    (folder / "one_id").write_text(ids[telling[0]])
    truth = {ids[i]: float(moved[i]) for i in np.flatnonzero(adult & again)}
    (folder / "truth.json").write_text(json.dumps(truth))


def make_codebook() -> str:
    """The demonstration's codebook, for care."""
    text = find_codebook("demo_population").read_text(encoding="utf-8")
    lines = [
        f"purpose: {PURPOSE}\n{CONSENT}" if line.startswith("purpose:") else line
        for line in text.replace("codebook: demo_population", "codebook: care_demo").splitlines()
    ]
    return "\n".join([*lines, *[f"    {english}: {chinese}" for english, chinese in QUESTIONS.items()]]) + "\n"


def make_care(tables: tuple[str, ...]) -> str:
    """A care file by which the shipped tables count as reviewed, as they are."""
    digests = {table: hashlib.sha256((ADVICE / f"{table}.yaml").read_bytes()).hexdigest() for table in tables}
    reviewed = "reviewer: nobody (a simulated survey), reviewed_on: 2026-01-01"
    return CARE.format(advice="\n".join(f"  - {{table: {t}, {reviewed}, sha256: {d}}}" for t, d in digests.items()))


def measure(folder: Path) -> dict[str, Any]:
    """Of those who answered twice, by true change: people, the mean change told of depression, and early warnings.

    Where nobody changed, warnings are false.
    """
    lake = Lake(folder / "lake")
    truth = json.loads((folder / "truth.json").read_text())
    named = digest_ids([one.encode() for one in truth], read_key(key_file(lake)))
    moved = dict(zip(named, truth.values(), strict=True))
    night = lake.restricted / FOLDER / f"run_date={AFTER}"
    found: dict[float, list[tuple[float, bool, bool]]] = {CHANGE: [], 0.0: [], -CHANGE: []}
    for person in json.loads((night / f"{SUMMARY}.json").read_text())["people"]:
        if person["person_id"] not in moved:
            continue
        told = json.loads((night / f"{name_analysis(person['person_id'])}.json").read_text())
        change = next(trait for trait in told["traits"] if trait["trait"] == "depression")["changes"][0]
        true = moved[person["person_id"]]
        held = bool(change["low"] <= true <= change["high"])
        found[true].append((change["median"], held, bool(person["warned"])))
    told_of = {f"{true:+g}": np.array(rows) for true, rows in found.items()}
    return {
        true: {
            "people": len(rows),
            "mean_change": round(float(rows[:, 0].mean()), 3),
            "coverage95": round(float(rows[:, 1].mean()), 3),
            "warned": round(float(rows[:, 2].mean()), 3),
        }
        for true, rows in told_of.items()
    }


if __name__ == "__main__":
    sys.exit(main())
