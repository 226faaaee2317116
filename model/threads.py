"""A fixed number of torch threads: sums are split among them, so the same bits need the same number."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def fix_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
