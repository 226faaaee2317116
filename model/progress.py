"""How far long work has come. The model knows no log of a night: whoever wants to hear listens to this logger."""

import logging
import time

log = logging.getLogger(__name__)
EVERY = 30.0  # seconds from one line to the next


class Progress:
    """Tells of some work at a decent rate: `done` of `total` and figures, as `progress` of the log's records."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._told = what, total, time.monotonic()

    def tell(self, done: int, **figures: float) -> None:
        """Says how far the work is, where it has been silent for long enough."""
        now = time.monotonic()
        if now - self._told >= EVERY:
            self._told = now
            log.info(self._what, extra={"progress": {"done": done, "total": self._total, **figures}})
