"""The ledger of differential privacy: what releases and trainings of a lake have spent, and whether tonight may more.

Of releases the manifests are the ledger: what none of them names was not released, and cost nothing. A training is
noted in `restricted/private_trainings.json` before it begins, whatever becomes of its model and its night. A release is
by noise or by suppression, and never both of the same people: figures of the two together would have neither's
guarantee.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from expectations.codebook_parts import MOST_DELTA, DifferentialPrivacy, PrivateTraining
from expectations.errors import ContractBroken
from jobs.errors import StageError
from jobs.job import Job
from jobs.lake import Lake, is_public, write_atomically
from jobs.release_calendar import Decision

DP, SDC = "dp", "sdc"
RELEASE = "release"
TRAININGS = "private_trainings.json"
SPENT = "the privacy budget is spent: the last release stays the public one"


@dataclass(frozen=True)
class Entry:
    """What was released of one night (RELEASE), or the version of a model that was trained on people; what it cost."""

    run_date: str
    what: str
    epsilon: Fraction
    delta: Fraction


def read_ledger(manifests: Iterable[Mapping[str, Any]], trainings: Iterable[Mapping[str, str]] = ()) -> list[Entry]:
    """Every release that published nights tell of, and every private training, noted or told of: each once.

    A night that is published again with the very tables that were public is no new release.
    """
    found: dict[tuple[str, str], Entry] = {}
    for noted in trainings:
        entry = Entry(noted["run_date"], noted["model_version"], Fraction(noted["epsilon"]), Fraction(noted["delta"]))
        found[entry.what, entry.what] = entry
    for manifest in manifests:
        run_date, told = str(manifest["run_date"]), (manifest.get("release") or {}).get("privacy")
        if told and is_public(manifest):
            tables = [file["sha256"] for file in manifest["stages"]["aggregate"]["tables"]["cohorts"]]
            costs = Fraction(told["epsilon"]), Fraction(told["delta"])
            found.setdefault((run_date, str(tables)), Entry(run_date, RELEASE, *costs))
        for version, cost in list_trainings(manifest["stages"].get("train", {}).get("details", {})):
            found.setdefault((version, version), Entry(run_date, version, exact(cost["epsilon"]), exact(cost["delta"])))
    return list(found.values())


def read_trainings(lake: Lake) -> list[dict[str, str]]:
    """The private trainings that were ever begun in the lake."""
    file = lake.restricted / TRAININGS
    found: list[dict[str, str]] = json.loads(file.read_text()) if file.exists() else []
    return found


def note_training(job: Job, version: str, chosen: PrivateTraining) -> None:
    """Counts a training that is about to begin, once for each version. The lake has to be held."""
    noted = read_trainings(job.lake)
    if version not in {one["model_version"] for one in noted}:
        cost = {"epsilon": str(chosen.epsilon), "delta": str(chosen.delta)}
        noted.append({"model_version": version, "run_date": job.run_date.isoformat(), **cost})
        job.lake.check_lease()
        write_atomically(job.lake.restricted / TRAININGS, json.dumps(noted, indent=1) + "\n")


def list_trainings(trained: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Private trainings that details of `train` tell of, by the model's version: in force, or refused."""
    models = (trained, trained.get("refused") or {})
    return [(model["model_version"], model["privacy"]) for model in models if model.get("privacy")]


def sum_ledger(entries: Sequence[Entry]) -> tuple[Fraction, Fraction]:
    """Epsilon and delta of all together, by basic composition, exactly."""
    return sum((entry.epsilon for entry in entries), Fraction()), sum((entry.delta for entry in entries), Fraction())


def name_mechanism(manifest: Mapping[str, Any]) -> str:
    return DP if (manifest.get("release") or {}).get("privacy") else SDC


def check_mechanism(job: Job) -> None:
    """Raises ContractBroken where the lake has public releases of the other kind."""
    wanted = DP if job.book.disclosure.dp else SDC
    for manifest in job.lake.issued():
        if is_public(manifest) and name_mechanism(manifest) != wanted:
            kinds = {DP: "a differentially private release", SDC: "a release by suppression"}
            raise ContractBroken(
                f"{job.book.codebook}: {kinds[wanted]} beside {kinds[name_mechanism(manifest)]} of the same people "
                f"({manifest['run_date']}) would have the guarantee of neither: keep to the one that has been released"
            )


def decide_budget(job: Job, chosen: DifferentialPrivacy) -> Decision:
    """Whether tonight's release is within the budget, beside tonight's training, whatever the people answered."""
    trained = {"run_date": job.run_date.isoformat(), "stages": {"train": {"details": job.night.read("train").details}}}
    spent, _ = sum_ledger(read_ledger([*job.lake.issued(), trained], read_trainings(job.lake)))
    left = exact(chosen.budget) - spent
    return Decision(True) if exact(chosen.epsilon) <= left else Decision(False, SPENT)


def affords_training(job: Job, version: str) -> bool:
    """Whether a private training and a release are within the budget, and all trainings within MOST_DELTA.

    What was noted of this very model is not counted twice.
    """
    released, trained = job.book.disclosure.dp, job.book.training.dp
    assert released and trained  # one is refused without the other
    ledger = read_ledger(job.lake.issued(), read_trainings(job.lake))
    epsilon, delta = sum_ledger([entry for entry in ledger if entry.what != version])
    enough = epsilon + exact(trained.epsilon) + exact(released.epsilon) <= exact(released.budget)
    return enough and delta + exact(trained.delta) <= exact(MOST_DELTA)


def exact(number: float) -> Fraction:
    """The number as it is written: ten releases of 0.1 are 1."""
    return Fraction(str(number))


def check_budget(job: Job) -> None:
    """Raises StageError where another night has spent since what this one would need."""
    chosen = job.book.disclosure.dp
    if chosen and not decide_budget(job, chosen).public:
        raise StageError(
            "the privacy budget was spent by another night since this one's tables were made: run "
            "`mindcensus aggregate` and what follows it again"
        )


def describe_privacy(chosen: DifferentialPrivacy) -> dict[str, Any]:
    """What a manifest says of its release."""
    return {
        "epsilon": str(chosen.epsilon),
        "delta": "0",
        "budget": str(chosen.budget),
        "neighbours": "one person more or less",
        "noise": "discrete Laplace, OpenDP",
    }
