"""The peers' environments: their packages stay out of the project's own, and are installed once."""

import os
import subprocess
import sys
import tempfile
import venv
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.heldout_data import Questionnaire
from benchmarks.margins import find_margins
from benchmarks.peers.exchange import Floats, Task, save_task

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "peers": ("ctgan==0.12.1", "scikit-learn==1.9.1", "sdmetrics==0.32.0"),
    "mlflow": ("mlflow-skinny==3.17.2",),
    "svy": ("svy==0.35.0",),
}
SHARED = {
    "peers": ("torch",),
    "mlflow": ("torch", "pyspark", "pandas", "numpy", "pyarrow"),
    "svy": (),
}  # in the project's versions


class PeerError(Exception):
    """A peer's environment cannot be made, or the peer failed; the message holds its last line."""


def prepare_environment(cache: Path, name: str = "peers") -> Path:
    """The environment's Python; a folder without its stamp was broken off, and is made anew."""
    folder = cache.resolve() / name
    python, stamp = folder / "bin" / "python", folder / "complete"
    # The project's own torch: the same build for both, and none for accelerators that are not there.
    packages = [*(f"{package}=={version(package).split('+')[0]}" for package in SHARED[name]), *PACKAGES[name]]
    if stamp.exists() and stamp.read_text().split() == packages:
        return python
    print(f"Setting up {folder} (once, some minutes)", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    (cache / ".gitignore").write_text("*\n")
    venv.create(folder, clear=True, with_pip=True)
    run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])
    stamp.write_text("\n".join(packages))
    return python


def ask_peer(peer: str, data: Questionnaire, seed: int, cache: Path) -> tuple[Floats, float]:
    """Probabilities (C, K) by the module `benchmarks.peers.<peer>`, and its seconds of training, on one thread."""
    python = prepare_environment(cache)
    task = Task(
        train=data.train,
        validation=data.validation,
        test=data.test,
        cell_rows=data.cell_rows,
        cell_items=data.cell_items,
        margins=find_margins(data.train, data.sizes),
        hidden_share=np.array(data.hidden_share),
        seed=np.array(seed),
    )
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "task.npz", Path(folder) / "answer.npz"
        save_task(task, asked)
        run([str(python), "-m", f"benchmarks.peers.{peer}", str(asked), str(answered)])
        with np.load(answered) as answer:
            return answer["probabilities"], float(answer["training"])


def run(command: list[str]) -> None:
    """Raises PeerError with the last line that the command wrote."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {**os.environ, **threads, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise PeerError(
            f"{' '.join(command[:4])} failed: {(result.stderr.strip().splitlines() or ['it said nothing'])[-1]}"
        )
