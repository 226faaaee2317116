"""`python -m benchmarks.peers.quality TASK.json`: SDMetrics' quality report of synthetic tables, the mean over them.

Column shapes are the complements of Kolmogorov-Smirnov and total variation distances, column pair trends those of
differences of correlations and of contingency tables: 1 is best.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sdmetrics.reports.single_table import QualityReport

NONE = "none"


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text())
    numbers, real = set(task["numbers"]), read_table(task["real"], task["numbers"])
    kinds = {name: {"sdtype": "numerical" if name in numbers else "categorical"} for name in real.columns}
    found = []
    for file in task["drawn"]:
        report = QualityReport()
        report.generate(real, read_table(file, task["numbers"])[list(real.columns)], {"columns": kinds}, verbose=False)
        found.append(report.get_properties().set_index("Property")["Score"])
    means = {name: float(np.mean([scores[name] for scores in found])) for name in found[0].index}
    Path(task["out"]).write_text(json.dumps(means))


def read_table(file: str, numbers: list[str]) -> pd.DataFrame:
    people = pd.read_csv(file, dtype=str)
    return people.fillna(NONE).assign(**{name: people[name].astype(float) for name in numbers})


if __name__ == "__main__":
    main()
