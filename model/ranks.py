"""Processes that share a training: each is fed a shard of the row groups, and each step learns from all of them.

They talk through torch's default process group, which whoever starts them has joined. Of one process alone nothing
is asked, and no number changes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process is number `rank` of `count`."""

    rank: int = 0
    count: int = 1

    @property
    def shard(self) -> tuple[int, int] | None:
        """As the feed takes it."""
        return (self.rank, self.count) if self.count > 1 else None

    def pad(self, batches: Iterable[T], steps: int) -> Iterator[T | None]:
        """An epoch's batches, then None for the steps that only others' shards have people for."""
        if self.count == 1:
            yield from batches
        else:
            yield from islice(chain(batches, repeat(None)), steps)

    def combine(self, network: nn.Module, loss: float, people: int) -> tuple[float, int]:
        """The mean loss of all ranks' people, and how many they are; gradients become those of that mean.

        Every rank gets the same bits: each sum is made once, and handed round.
        """
        if self.count == 1:
            return loss, people
        learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning]
        # A batch without people has nothing to say, whatever its loss is called.
        told = torch.tensor([loss * people if people else 0.0, people])
        flat = torch.cat([*(people * part.flatten() for part in parts), told])
        dist.all_reduce(flat)
        total = int(flat[-1])
        flat /= max(total, 1)
        means = torch.split(flat[:-2], [part.numel() for part in parts])
        for parameter, mean in zip(learning, means, strict=True):
            parameter.grad = mean.view_as(parameter).clone()
        return float(flat[-2]), total

    def agree(self, number: float) -> float:
        """The first rank's number, so that all stop at the same step, whatever processors they have."""
        if self.count == 1:
            return number
        told = torch.tensor([number], dtype=torch.float64)
        dist.broadcast(told, src=0)
        return float(told)
