"""`python -m benchmarks.chaos --faults N --seed S`: random faults over whole nights under a real scheduler.

Nights of NHANES and of the demo population run in Airflow on the stack's services; several faults come to each. A night
has to end as an undisturbed one does, readers who poll throughout may see yesterday or today and nothing between, and
nothing may be left in staging. A run that was broken off goes on with --resume; its folder keeps what has landed.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.airflow_api import FINAL, AirflowApi, running_stack
from benchmarks.chaos_faults import FAULTS, PATIENCE, Ground, NotLanded, find_driver
from benchmarks.chaos_nights import SECOND, Undisturbed, describe_params, find_undisturbed, make_surveys
from benchmarks.chaos_plan import KINDS, STAGES, Fault, deal_nights, plan_faults
from benchmarks.endings import Reader, describe_ending, find_differences, find_left, reading
from benchmarks.namespaces import Network, find_obstacle, make_network
from benchmarks.spark_cluster import wait_until

DAG = "population_nightly"
A_NIGHT = 10  # faults
MOUNT_SIZE = "4g"
NIGHT_SECONDS = 1_800.0
RETRY_SECONDS = "1"  # of the DAG's first retry: the night's own pause is minutes
READ_EVERY = 0.2
LOOK_EVERY = 0.1
WORKERS = ("spark-worker-1", "spark-worker-2")  # as the stack calls them


@dataclass(frozen=True)
class Outcome:
    """A fault that landed, and what became of its night."""

    number: int
    kind: str
    stage: str
    equal: bool
    half_read: int
    left: int


def main() -> int:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("chaos: ended; --resume goes on"))  # what was made is taken away
    if obstacle := find_obstacle():
        sys.exit(f"chaos: {obstacle}")
    folder: Path = arguments.folder.resolve()
    done = read_outcomes(folder) if arguments.resume else []
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "outcomes.jsonl").write_text("".join(json.dumps(asdict(each)) + "\n" for each in done))
    landed = {outcome.number for outcome in done}
    due = [fault for fault in plan_faults(arguments.faults, arguments.seed) if fault.number not in landed]
    with (
        mounted(folder / "mount") as mount,
        make_network(WORKERS) as network,
        running_stack(folder / "stack", place_workers(network), MINDCENSUS_RETRY_SECONDS=RETRY_SECONDS) as api,
    ):
        ground = Ground(mount, mount / "lake", folder / "stack", network, random.Random(arguments.seed))
        key = ground.stack / "secrets" / "pseudonym_key"
        nights = [find_undisturbed(survey, folder, ground.lake, key) for survey in make_surveys(folder)]
        api.end_others(DAG)
        api.pause(DAG, False)
        number = 0
        while due:
            (faults, *_), night = deal_nights(due, A_NIGHT), nights[number % len(nights)]
            made = run_night(ground, api, night, faults)
            with (folder / "outcomes.jsonl").open("a") as file:
                file.writelines(json.dumps(asdict(outcome)) + "\n" for outcome in made)
            done += made
            due = [fault for fault in due if fault.number not in {outcome.number for outcome in done}]
            number += 1
    return tell(done, arguments.faults)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--faults", type=int, default=60, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    parser.add_argument("--folder", type=Path, default=Path(".chaos"), help="where everything is made and kept")
    parser.add_argument("--resume", action="store_true", help="go on with what the folder holds")
    return parser.parse_args()


def read_outcomes(folder: Path) -> list[Outcome]:
    file = folder / "outcomes.jsonl"
    return [Outcome(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """A file system of the lake's own, so that it can be filled and shut without anything else."""
    folder.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MOUNT_SIZE},mode=0755", "tmpfs", folder])
    if made.returncode:
        sys.exit("chaos: no file system could be mounted: run it as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def place_workers(network: Network) -> list[str]:
    """The stack's options by which its Spark workers live in the namespaces."""
    places = [f"--worker-in={network.namespace(name)}={network.address(name)}" for name in network.names]
    return ["--spark-address", network.here, *places]


def run_night(ground: Ground, api: AirflowApi, night: Undisturbed, faults: Sequence[Fault]) -> list[Outcome]:
    """One night in Airflow with these faults; returns those that landed."""
    wait_until(lambda: not any(find_driver(ground.lake, stage) for stage in STAGES), "the lake is left alone", PATIENCE)
    night.restore(ground.lake)
    told = ", ".join(f"{fault.kind} in {fault.stage}" for fault in faults)
    print(f"night of {night.survey.name}: {told}", flush=True)
    with reading(ground.lake, READ_EVERY) as reader:
        run = api.trigger(DAG, describe_params(night.survey, ground.lake))
        landed, state = disturb(ground, api, night, faults, run)
        reader.catch_up()
    differing = [f"the run's state {state}"]
    if state == "success":
        differing = find_differences(describe_ending(ground.lake, SECOND), night.ending)
    half_read, left = count_half_read(reader, night), find_left(ground.lake)
    if differing:
        kept = ground.stack.parent / "differing" / f"{faults[0].number}-{night.survey.name}"
        shutil.copytree(ground.lake, kept, dirs_exist_ok=True)
        print(f"   other than undisturbed: {', '.join(differing[:5])}: {kept}", flush=True)
    for name in left[:5]:
        print(f"   left: {name}", flush=True)
    return [Outcome(fault.number, fault.kind, fault.stage, not differing, half_read, len(left)) for fault in landed]


def disturb(
    ground: Ground, api: AirflowApi, night: Undisturbed, faults: Sequence[Fault], run: str
) -> tuple[list[Fault], str]:
    """Makes each fault while its stage is at work; returns what landed, and the state in which the run ended."""
    pending, landed, state, asked = list(faults), list[Fault](), "queued", 0.0
    deadline = time.monotonic() + NIGHT_SECONDS
    while state not in FINAL and time.monotonic() < deadline:
        if pending and (driver := find_driver(ground.lake, pending[0].stage)):
            fault = pending.pop(0)
            time.sleep(fault.moment * night.seconds[fault.stage])
            try:
                if find_driver(ground.lake, fault.stage) != driver:
                    raise NotLanded("the stage was over")
                FAULTS[fault.kind](ground, driver)
            except NotLanded as error:
                print(f"   {fault.kind} in {fault.stage}: another time ({error})", flush=True)
            else:
                print(f"   {fault.kind} in {fault.stage}: landed", flush=True)
                landed.append(fault)
        later = STAGES[STAGES.index(pending[0].stage) + 1 :] if pending else ()
        if any(find_driver(ground.lake, stage) for stage in later):
            print(f"   {pending[0].kind} in {pending[0].stage}: another time (the stage was over)", flush=True)
            pending.pop(0)
        if time.monotonic() - asked > 2:
            state, asked = str(api.read_run(DAG, run)["state"]), time.monotonic()
            if state == "queued":
                api.end_others(DAG, run)
        time.sleep(LOOK_EVERY)
    return landed, state


def count_half_read(reader: Reader, night: Undisturbed) -> int:
    """How often a reader saw what is neither yesterday nor today, or today before yesterday, or was refused."""
    wrong = len(reader.errors)
    for zone, seen in reader.seen.items():
        allowed = [night.old_counts[zone], night.counts[zone]]
        wrong += sum(counts not in allowed for counts in seen)
        wrong += seen not in (allowed, allowed[:1], allowed[1:])
    return wrong


def tell(done: Sequence[Outcome], faults: int) -> int:
    """The tally; the exit code is 0 where all is as it should be."""
    for title, names, key in (("kind", KINDS, "kind"), ("stage", STAGES, "stage")):
        tally = Counter(getattr(outcome, key) for outcome in done)
        print(f"by {title}: " + ", ".join(f"{name} {tally[name]}" for name in names))
    equal, half_read = sum(each.equal for each in done), sum(each.half_read for each in done)
    left = sum(each.left for each in done)
    print(f"faults {len(done)}, equal {equal}, half-read {half_read}, left {left}")
    return 0 if (len(done), equal, half_read, left) == (faults, faults, 0, 0) else 1


if __name__ == "__main__":
    sys.exit(main())
