"""`python -m benchmarks.peers.survey_svy TASK.json ANSWER.csv`: the task's estimates by PyPI's svy, and its seconds."""

import json
import sys
import time
from pathlib import Path

import polars as pl
import svy


def main() -> None:
    task, answer = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    people = pl.read_parquet(f"{task['people']}/*.parquet")
    for name, source, side, cut in task["outcomes"]:
        reached = people[source] >= cut if side == ">=" else people[source] <= cut if side else None
        people = people.with_columns(
            (people[source] if reached is None else reached.cast(pl.Float64)).alias(f"y_{name}")
        )
    names = [name for name, *_ in task["outcomes"]]
    start = time.perf_counter()
    sample = svy.Sample(data=people, design=svy.Design(stratum="stratum", psu="psu", wgt="weight"))
    found = []
    for breakdown in task["breakdowns"]:
        for name in names:
            result = sample.estimation.mean(f"y_{name}", by=breakdown or None, drop_nulls=True)
            found.append((breakdown, name, result))
    seconds = time.perf_counter() - start
    rows = [
        {
            "breakdown": "*".join(breakdown) or "all",
            "cell": ".".join(str(level) for level in part.by_level or ()),
            "outcome": name,
            "estimate": part.est,
            "se": part.se,
        }
        for breakdown, name, result in found
        for part in result.estimates
    ]
    pl.DataFrame(rows).write_csv(answer)
    answer.with_suffix(".seconds").write_text(str(seconds))


if __name__ == "__main__":
    main()
