"""A task that waits for the marker of a delivery, SHA256SUMS, without a worker's slot: the triggerer looks for it."""

import glob
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.triggers.file import FileTrigger
from airflow.sdk import BaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

EVERY = 30  # seconds


class DeliverySensor(BaseOperator):
    """Defers until the file is there; an empty name waits for nothing. `validate` then compares the sums in it."""

    template_fields = ("marker",)
    ui_color = "#e3e9f3"

    def __init__(self, *, marker: str, patience: timedelta, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.marker, self.patience = marker, patience

    def execute(self, context: "Context") -> None:
        if not self.marker:
            self.log.info("no marker is waited for")
        elif Path(self.marker).is_file():
            self.log.info("the delivery is there", marker=self.marker)
        else:
            trigger = FileTrigger(filepath=glob.escape(self.marker), poke_interval=EVERY)
            self.defer(trigger=trigger, method_name="end_wait", timeout=self.patience)

    def end_wait(self, context: "Context", event: bool) -> None:
        self.log.info("the delivery has come", marker=self.marker)
