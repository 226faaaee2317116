"""`python -m benchmarks.stack_nights`: nights under the real scheduler, on the services of `make stack`.

The DAG is unpaused and catches the last three nights up; a backfill of the five nights before follows. One extract
comes after its night has begun to wait. Every night's manifest is looked at, and what is left when the stack has ended.
The last line is JSON: runs by type and state, and what was found. `--screenshot FILE` shoots the grid view in Chromium.
"""

import argparse
import base64
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.airflow_api import FINAL, AirflowApi, running_stack
from benchmarks.pages import browse
from jobs.delivery import write_marker
from jobs.demo import DIRTY_SHARE, Plan, write_part
from jobs.demo_model import build_country

DAG = "population_nightly"
PEOPLE, SCHEDULED, BACKFILLED = 2_000, 3, 5
PATIENCE = 30 * 60  # seconds without any change
EVERY = 5.0
WIDTH, HEIGHT = 1400, 900  # pixels of the picture
LAST_TASK, LONGEST_DRAWING, SETTLE = "publish", 120, 5  # the page is drawn when it names the task; seconds


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stack_nights", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--folder", type=Path, default=Path(".bench/stack"), help="where the stack and its lake are made anew"
    )
    parser.add_argument("--screenshot", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    dates = list_dates()
    deliver(folder / "landing", dates)
    late = folder / "landing" / dates[-1] / "SHA256SUMS"
    late.rename(folder / "late")
    with running_stack(folder, CATCH_UP_FROM=dates[BACKFILLED]) as api:
        begun = time.monotonic()
        api.pause(DAG, False)
        wait_for_wait(api)
        (folder / "late").rename(late)
        wait_for_runs(api, SCHEDULED)
        api.call("POST", "backfills", describe_backfill(dates))
        wait_for_runs(api, SCHEDULED + BACKFILLED)
        found = describe_runs(api) | {"seconds": round(time.monotonic() - begun)}
        if arguments.screenshot:
            shoot(api, folder, arguments.screenshot)
    found |= check_nights(folder / "lake", dates) | {"left": count_left(folder)}
    print(json.dumps(found))
    return int(found["runs"] != {"backfill success": BACKFILLED, "scheduled success": SCHEDULED} or bool(found["left"]))


def list_dates() -> list[str]:
    """The nights up to the last one that was due at 02:00 UTC, in order."""
    last = (datetime.now(UTC) - timedelta(hours=2)).date()
    return [(last - timedelta(days=back)).isoformat() for back in reversed(range(SCHEDULED + BACKFILLED))]


def deliver(landing: Path, dates: list[str]) -> None:
    """What `mindcensus demo` writes, without a Spark of its own for each night."""
    country = build_country(PEOPLE)
    for seed, day in enumerate(dates, 1):
        extract, truth = landing / day, landing / f"{day}-truth"
        for folder in (extract, truth):
            folder.mkdir(parents=True)
        write_part(Plan(PEOPLE, seed, date.fromisoformat(day), DIRTY_SHARE), country, 0, extract, truth)
        write_marker(extract)


def describe_backfill(dates: list[str]) -> dict[str, Any]:
    """From the day before the first night: a night's interval begins there."""
    before = date.fromisoformat(dates[0]) - timedelta(days=1)
    bounds = {"from_date": f"{before}T00:00:00Z", "to_date": f"{dates[BACKFILLED - 1]}T00:00:00Z"}
    return {"dag_id": DAG, **bounds, "max_active_runs": 1, "reprocess_behavior": "none"}


def wait_for_wait(api: AirflowApi) -> None:
    """Until the last night's extract is waited for: its run comes up last, so the others have ended by then."""
    wait_until(api, lambda states: "deferred" in states.elements())


def wait_for_runs(api: AirflowApi, number: int) -> None:
    wait_until(api, lambda states: sum(run["state"] in FINAL for run in api.list_runs(DAG)) >= number)


def wait_until(api: AirflowApi, condition: Callable[[Counter[str]], bool]) -> None:
    """Looks at the number of tasks in each state again and again."""
    last, changed = Counter[str](), time.monotonic()
    while not condition(states := count_tasks(api)):
        if states != last:
            last, changed = states, time.monotonic()
        if time.monotonic() > changed + PATIENCE:
            sys.exit("stack_nights: nothing more happens; look at the stack's logs")
        time.sleep(EVERY)


def count_tasks(api: AirflowApi) -> Counter[str]:
    tasks = (task for run in api.list_runs(DAG) for task in api.read_tasks(DAG, run["dag_run_id"]))
    return Counter(str(task["state"]) for task in tasks)


def describe_runs(api: AirflowApi) -> dict[str, Any]:
    """Runs by type and state, and tasks by state."""
    runs = Counter(f"{run['run_type']} {run['state']}" for run in api.list_runs(DAG))
    return {"runs": dict(sorted(runs.items())), "tasks": dict(sorted(count_tasks(api).items()))}


def shoot(api: AirflowApi, folder: Path, picture: Path) -> None:
    """The grid view as a user who has logged in sees it."""
    known = json.loads((folder / "stack.json").read_text())
    with browse() as browser:
        browser.ask("Page.enable")
        browser.ask("Network.enable")
        browser.ask("Network.setCookie", name="_token", value=api.log_in(), url=known["address"])
        browser.ask("Emulation.setDeviceMetricsOverride", width=WIDTH, height=HEIGHT, deviceScaleFactor=1, mobile=False)
        browser.ask("Page.navigate", url=f"{known['address']}/dags/{DAG}")
        deadline = time.monotonic() + LONGEST_DRAWING
        while LAST_TASK not in str(browser.run("document.body?.innerText")) and time.monotonic() < deadline:
            time.sleep(1)
        time.sleep(SETTLE)
        picture.write_bytes(base64.b64decode(browser.ask("Page.captureScreenshot", format="png")["data"]))


def check_nights(lake: Path, dates: list[str]) -> dict[str, Any]:
    """Published nights, and the models that they used, by the date of the first of each."""
    models: dict[str, str] = {}
    for day in dates:
        files = sorted((lake / "restricted" / "runs" / f"run_date={day}").glob("[0-9]*.json"))
        if files:
            models[day] = json.loads(files[-1].read_text())["model"]["model_version"]
    return {"published": len(models), "models": sorted(set(models.values())), "first": min(models, default=None)}


def count_left(folder: Path) -> int:
    """Processes of the stack that are still there, and what is left in the lake's staging."""
    mark = f"MINDCENSUS_STACK={folder}\0".encode()
    left = len(list((folder / "lake" / "restricted" / "staging").iterdir()))
    for process in Path("/proc").glob("[0-9]*"):
        try:
            left += mark in (process / "environ").read_bytes()
        except OSError:
            continue
    return left


if __name__ == "__main__":
    sys.exit(main())
