"""`python -m benchmarks.peers.generators TASK.json`: people by the ctgan package's CTGAN or TVAE.

The model has its own defaults, is trained once and drawn from several times, each time into a file
`draw-<number>.csv`. Numbers that are not known have a column of their own that
says so, since neither model takes a missing number.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ctgan import CTGAN, TVAE

MODELS = {"ctgan": CTGAN, "tvae": TVAE}
NONE, KNOWN = "none", "known_"


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    torch.manual_seed(task["seed"])
    np.random.seed(task["seed"])
    people = pd.read_csv(task["table"], dtype=str)
    numbers = task["numbers"]
    known = people[numbers].notna()
    discrete = people.drop(columns=numbers).fillna(NONE)
    continuous = people[numbers].astype(float)
    table = pd.concat([discrete, continuous.fillna(continuous.mean()), known.astype(str).add_prefix(KNOWN)], axis=1)
    model = MODELS[task["model"]](enable_gpu=False)
    start = time.process_time()
    model.fit(table, [*discrete.columns, *(KNOWN + name for name in numbers)])
    seconds = time.process_time() - start
    for number in range(task["draws"]):
        drawn = model.sample(task["people"])
        for name in numbers:
            # A normal mixture may fall outside what there is.
            values = drawn[name].clip(continuous[name].min(), continuous[name].max())
            drawn[name] = values.where(drawn[KNOWN + name] == "True")
        drawn = drawn[people.columns].replace(NONE, np.nan)
        drawn.to_csv(Path(task["out"]) / f"draw-{number}.csv", index=False)
    (Path(task["out"]) / "seconds").write_text(f"{seconds:.1f}")


if __name__ == "__main__":
    main()
