"""Which faults come in which stage, and when: drawn from a seed, every kind and every stage among them."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

STAGES = ("validate", "preprocess", "train", "score", "aggregate", "report", "publish")
SPARK_STAGES = ("validate", "preprocess", "score", "aggregate")
# The stages in which each kind can happen: not every one has a JVM or workers.
KINDS = {
    "scheduler killed": STAGES,
    "task killed": STAGES,
    "driver killed": STAGES,
    "JVM killed": SPARK_STAGES,
    "Spark worker killed": SPARK_STAGES,
    "database restarted": STAGES,
    "disk full": STAGES,
    "lake read-only": STAGES,
    "holder stopped": STAGES,
    "worker cut off": SPARK_STAGES,
}


@dataclass(frozen=True)
class Fault:
    """One fault: its kind, the stage, and the moment as a share of the stage's undisturbed time."""

    number: int
    kind: str
    stage: str
    moment: float


def plan_faults(count: int, seed: int) -> list[Fault]:
    """As many faults of each kind as of any other, give or take one, each in the stage with the fewest so far."""
    draw = random.Random(seed)
    kinds: list[str] = []
    while len(kinds) < count:
        kinds += draw.sample(list(KINDS), len(KINDS))
    hits: Counter[str] = Counter()
    faults = []
    for number, kind in enumerate(kinds[:count]):
        fewest = min(hits[stage] for stage in KINDS[kind])
        stage = draw.choice([stage for stage in KINDS[kind] if hits[stage] == fewest])
        hits[stage] += 1
        faults.append(Fault(number, kind, stage, draw.uniform(0.05, 0.9)))
    return faults


def deal_nights(faults: Sequence[Fault], a_night: int) -> list[list[Fault]]:
    """The faults of each night, in the order in which its stages come."""
    nights = [list(faults[start : start + a_night]) for start in range(0, len(faults), a_night)]
    return [sorted(night, key=lambda fault: (STAGES.index(fault.stage), fault.moment)) for night in nights]
