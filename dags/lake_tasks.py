"""What the DAGs of a lake share: params, retries and limits, turns at the lake, and the date of a night."""

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, Param

from alerts import tell_failure

if TYPE_CHECKING:
    from airflow.sdk import DagRun

CODEBOOK = Param(
    os.environ.get("MINDCENSUS_CODEBOOK", "demo_population"),
    type="string",
    minLength=1,
    description="A codebook that ships, by its name, or the path of a YAML file.",
)
LAKE = Param(
    os.environ.get("MINDCENSUS_LAKE", "/data/lake"),
    type="string",
    pattern="^/.*$",
    description="The lake's folder, as an absolute path.",
)

# A pool of one slot, docker/pools.json: tasks of all DAGs take turns at the lake, and wait in line rather than fail.
POOL = os.environ.get("MINDCENSUS_POOL", "default_pool")

DEFAULTS = {
    # Long enough for a killed task's orphan, which holds the lake, to end.
    "retries": 3,
    "retry_delay": timedelta(seconds=int(os.environ.get("MINDCENSUS_RETRY_SECONDS", "180"))),
    "retry_exponential_backoff": 3,
    "max_retry_delay": timedelta(minutes=30),
    "execution_timeout": timedelta(hours=4),
    "pool": POOL,
    "on_failure_callback": tell_failure,
}

# Nothing of a night can be read before it is published: so these change then, not where their files are written.
PROFILES = Asset(name="profiles", uri="x-mindcensus://restricted/profiles")
COHORTS = Asset(name="cohorts", uri="x-mindcensus://public/cohorts")
# Changes when a night has found its model too old, or drifted away from, and was not to train one itself.
RETRAIN_DUE = Asset(name="retrain_due", uri="x-mindcensus://restricted/retrain_due")


def night_date(params: dict[str, Any], dag_run: "DagRun") -> str:
    """The date that every task is given, so that no stage looks at a clock: the end of the run's data interval.

    A run that an asset or a person started has none: it is the day on which it was due.
    """
    return params.get("run_date") or (dag_run.data_interval_end or dag_run.run_after).strftime("%Y-%m-%d")
