"""A profile as one would write it in PyTorch at first: float32, every category of every item at all draws at once.

What the documented ways of scoring in Spark wrap (a user's model, batch by batch). The numbers are the project's, but
for the probability of reaching a cut: skipped answers are drawn rather than reckoned with, which is less work.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.network import fixed_noise
from model.registry import Model
from model.scoring import DRAWS, NINETY_PERCENT
from model.spec import MISSING


class PlainScorer:
    def __init__(self, model: Model) -> None:
        self.model = model
        self.network = model.network
        spec = model.spec
        self.members = {scale.key: [spec.columns.index(key) for key in scale.items] for scale in spec.scales}

    @torch.no_grad()
    def score(self, codes: npt.NDArray[np.int8]) -> dict[str, npt.NDArray[np.float32]]:
        """Float columns of people with these codes (rows, items)."""
        network, spec, norms = self.network, self.model.spec, self.model.norms
        categories = network.categories(torch.from_numpy(codes))
        answered = (codes != MISSING).sum(axis=1)
        posterior = network.posterior(categories)
        drawn = network.draw(posterior, categories, fixed_noise(DRAWS, network.latents))
        masses = drawn.masses()
        probabilities = network.items.probabilities(*network.place(drawn.latents))
        columns: dict[str, Tensor | npt.NDArray[np.float32]] = {
            "log_likelihood": torch.where(torch.from_numpy(answered > 0), drawn.bound(), 0.0)
        }
        mean, sd = posterior.mean.numpy(), posterior.sd().numpy()
        for place, trait in enumerate(spec.traits):
            half = np.float32(NINETY_PERCENT) * sd[:, place]
            ranks = norms.rank(trait.key, mean[:, place], mean[:, place] - half, mean[:, place] + half)
            parts = ("percentile", "percentile_low", "percentile_high")
            columns |= {f"{trait.key}_{part}": rank for part, rank in zip(parts, ranks, strict=True)}
            columns |= {f"{trait.key}_mean": mean[:, place], f"{trait.key}_sd": sd[:, place]}
        known, scores = categories >= 0, network.items.scores(categories)
        foreseen = (probabilities * network.items.category_scores).sum(dim=-1)
        expected = torch.where(known, scores, (foreseen * masses[..., None]).sum(dim=0))
        reached = probabilities.cumsum(dim=-1)[..., :-1]
        draws = (torch.rand((*reached.shape[:-1], 1)) > reached).sum(dim=-1)
        rows = torch.arange(len(spec.items))
        guessed = torch.where(known, scores, network.items.category_scores[rows, draws])
        for scale in spec.scales:
            members = self.members[scale.key]
            columns[f"{scale.key}_expected"] = expected[:, members].sum(dim=1) * scale.multiply
            if scale.cut:
                totals, bound = guessed[..., members].sum(dim=-1) * scale.multiply, float(scale.cut[2:])
                passes = totals >= bound if scale.cut.startswith(">=") else totals <= bound
                columns[scale.cut_column] = (passes * masses).sum(dim=0)
        fit = network.person_fit(categories, posterior).numpy()
        columns["person_fit_percentile"] = norms.rank_fit(fit, answered.astype(np.int16))
        return {name: np.asarray(column, dtype=np.float32) for name, column in columns.items()}
