"""TVAE of the ctgan package with its own defaults, an unanswered item as one more level.

TVAE only generates people. What it says of hidden answers is its decoder's distribution over many draws of the latent,
each weighed by the likelihood of the answers seen: p(y* | y) = sum_z w(z) p(y* | z), w(z) as prod_j p(y_j | z)^t.
With many items few draws have all the weight, and the decoder is surer than it should be; the power t, chosen on
validation people's hidden answers, is in TVAE's favour.
Shapes: Z draws, n people, J items, K levels.
"""

import time

import numpy as np
import pandas as pd
import torch
from ctgan import TVAE

from benchmarks.peers.exchange import MISSING, Floats, Integers, Task, blend_with_margins, hide_answers, run_peer

DRAWS = 20_000
POWERS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15)
BLOCK = 256  # people at once
SMALLEST_PROBABILITY = 1e-6


def predict(task: Task) -> tuple[Floats, float]:
    torch.set_num_threads(1)
    torch.manual_seed(int(task.seed))
    start = time.process_time()
    model = fit(task.train[~task.validation])
    training = time.process_time() - start
    table = tabulate_draws(model, task)
    judged = hide_answers(task.train[task.validation], float(task.hidden_share), np.random.default_rng(int(task.seed)))
    losses = {
        power: judged.measure(predict_cells(table, task.margins, judged.seen, judged.rows, judged.items, power))
        for power in POWERS
    }
    best = min(losses, key=losses.__getitem__)
    return predict_cells(table, task.margins, task.test, task.cell_rows, task.cell_items, best), training


def fit(codes: np.ndarray) -> TVAE:
    frame = pd.DataFrame(codes).map(str).set_axis([f"item_{item}" for item in range(codes.shape[1])], axis=1)
    model = TVAE(enable_gpu=False)
    model.fit(frame, list(frame.columns))
    return model


@torch.no_grad()
def tabulate_draws(model: TVAE, task: Task) -> torch.Tensor:
    """Probabilities (Z, J, K) of the levels at draws of the latent; the unanswered level is left out."""
    model.decoder.eval()
    output, _ = model.decoder(torch.randn(DRAWS, model.embedding_dim))
    table = torch.full((DRAWS, *task.margins.shape), SMALLEST_PROBABILITY)
    start = 0
    for item, column in enumerate(model.transformer._column_transform_info_list):
        levels = [int(name) for name in column.transform.dummies]
        stop = start + column.output_dimensions
        shares = output[:, start:stop].softmax(dim=1)
        start = stop
        for position, level in enumerate(levels):
            if level != MISSING:
                table[:, item, level] = shares[:, position].clamp(min=SMALLEST_PROBABILITY)
    table *= torch.from_numpy(task.margins > 0)
    return table / table.sum(dim=2, keepdim=True)


def predict_cells(
    table: torch.Tensor, margins: Floats, seen: np.ndarray, rows: Integers, items: Integers, power: float
) -> Floats:
    logs = table.clamp(min=1e-12).log().flatten(1)
    found = np.zeros((len(rows), margins.shape[1]))
    for start in range(0, len(seen), BLOCK):
        codes = torch.from_numpy(seen[start : start + BLOCK]).long()
        one_hot = torch.nn.functional.one_hot(codes + 1, margins.shape[1] + 1)[..., 1:].float().flatten(1)
        weights = (power * one_hot @ logs.T).softmax(dim=1)
        expected = (weights @ table.flatten(1)).reshape(len(codes), *margins.shape).double().numpy()
        cells = np.flatnonzero((rows >= start) & (rows < start + BLOCK))
        found[cells] = expected[rows[cells] - start, items[cells]]
    return blend_with_margins(found, margins[items])


if __name__ == "__main__":
    run_peer(predict)
