"""What a model is reckoned with: a GPU where there is one, else processor cores; and in which numbers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from model.errors import ModelError

DEVICE, NUMBERS = "MINDCENSUS_DEVICE", "MINDCENSUS_NUMBERS"
CHOICES = {DEVICE: ("auto", "cpu", "cuda"), NUMBERS: ("auto", "float32", "bfloat16")}


@dataclass(frozen=True)
class Arithmetic:
    """`device` is "cpu" or "cuda"; `numbers`, "float32" or "bfloat16", are those of the encoder's widest layer."""

    device: str = "cpu"
    numbers: str = "float32"

    @property
    def dtype(self) -> torch.dtype | None:
        """As `ProfileNetwork.numbers` takes it."""
        return torch.bfloat16 if self.numbers == "bfloat16" else None

    def __str__(self) -> str:
        return f"{self.numbers} on {'the GPU' if self.device == 'cuda' else 'the processor'}"

    def check(self) -> None:
        """Raises ModelError where this machine has no such device."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ModelError(f"There is no GPU that torch can use on this machine: set {DEVICE}=cpu.")


EXACT = Arithmetic()


def choose_arithmetic() -> Arithmetic:
    """As MINDCENSUS_DEVICE and MINDCENSUS_NUMBERS say; `auto` is a GPU where torch finds one, and bfloat16 where the
    processor multiplies it. Raises ModelError for other words, and for a GPU that is not there."""
    device, numbers = (_read(variable) for variable in CHOICES)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if numbers == "auto":
        numbers = "bfloat16" if device == "cpu" and multiplies_bfloat16() else "float32"
    chosen = Arithmetic(device, numbers)
    chosen.check()
    return chosen


def describe_machine(arithmetic: Arithmetic) -> dict[str, str]:
    """What the last bits of a result hang on, beside the model and the numbers: the device's kind, and the packages."""
    if arithmetic.device == "cuda":
        device = torch.cuda.get_device_name()
    else:
        device = f"{torch.cpu.get_capabilities()['cpu_name']}, {torch.backends.cpu.get_cpu_capability()}"
    return {"device": device, "torch": str(torch.__version__), "numpy": np.__version__}


def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for it; without them bfloat16 is slower than float32."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def _read(variable: str) -> str:
    word = os.environ.get(variable) or "auto"
    if word not in CHOICES[variable]:
        raise ModelError(f"{variable} is '{word}': it must be one of {', '.join(CHOICES[variable])}.")
    return word


@contextmanager
def on_device(device: str) -> Iterator[None]:
    """New tensors lie on the device, of this thread alone."""
    if device == "cpu":  # where they lie anyway; a context would cost every call of torch a little
        yield
        return
    # The same sums in the same order, run after run; cuBLAS reads its part when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # all of it is written
    try:
        with torch.device(device):
            yield
    finally:
        torch.use_deterministic_algorithms(before)


def make_generator(seed: int) -> torch.Generator:
    """Random numbers for where new tensors lie."""
    return torch.Generator(torch.get_default_device()).manual_seed(seed)
