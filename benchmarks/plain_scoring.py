"""A profile as one would write it in PyTorch at first: float32, every category of every item at all draws at once.

What the documented ways of scoring in Spark wrap (a user's model, batch by batch). The numbers are the project's, but
for the probability of reaching a cut: skipped answers are drawn rather than reckoned with, which is less work.
"""

import torch
from torch import Tensor, nn

from model.network import fixed_noise
from model.norms import Table
from model.registry import Model
from model.scoring import DRAWS, NINETY_PERCENT


class PlainScorer(nn.Module):
    """Codes (B, J) to columns of numbers (B, C), which `names` tells."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network, self.spec, self.norms = model.network, model.spec, model.norms
        self.members = {scale.key: [self.spec.columns.index(key) for key in scale.items] for scale in self.spec.scales}
        self.names = list(self.profile(torch.zeros(2, len(self.spec.columns), dtype=torch.int8)))

    def forward(self, codes: Tensor) -> Tensor:
        return torch.stack(list(self.profile(codes).values()), dim=1)

    @torch.no_grad()
    def profile(self, codes: Tensor) -> dict[str, Tensor]:
        network, spec = self.network, self.spec
        categories = network.categories(codes)
        known, scores = categories >= 0, network.items.scores(categories)
        answered = known.sum(dim=1)
        posterior = network.posterior(categories)
        drawn = network.draw(posterior, categories, fixed_noise(DRAWS, network.latents))
        masses = drawn.masses()
        probabilities = network.items.probabilities(*network.place(drawn.latents))
        columns = {"log_likelihood": torch.where(answered > 0, drawn.bound(), 0.0)}
        sd = posterior.sd()
        for place, trait in enumerate(spec.traits):
            mean, half = posterior.mean[:, place], NINETY_PERCENT * sd[:, place]
            middle = rank(self.norms.profiles[trait.key], mean)
            low, high = (rank(self.norms.traits[trait.key], end) for end in (mean - half, mean + half))
            columns |= {f"{trait.key}_mean": mean, f"{trait.key}_sd": sd[:, place], f"{trait.key}_percentile": middle}
            columns[f"{trait.key}_percentile_low"] = torch.minimum(low, middle)
            columns[f"{trait.key}_percentile_high"] = torch.maximum(high, middle)
        foreseen = (probabilities * network.items.category_scores).sum(dim=-1)
        expected = torch.where(known, scores, (foreseen * masses[..., None]).sum(dim=0))
        reached = probabilities.cumsum(dim=-1)[..., :-1]
        guessed = (torch.rand((*reached.shape[:-1], 1)) > reached).sum(dim=-1)
        guessed = torch.where(known, scores, network.items.category_scores[torch.arange(len(spec.items)), guessed])
        for scale in spec.scales:
            members = self.members[scale.key]
            columns[f"{scale.key}_expected"] = expected[:, members].sum(dim=1) * scale.multiply
            if scale.cut:
                totals, bound = guessed[..., members].sum(dim=-1) * scale.multiply, float(scale.cut[2:])
                passes = totals >= bound if scale.cut.startswith(">=") else totals <= bound
                columns[scale.cut_column] = (passes * masses).sum(dim=0)
        fit = network.person_fit(categories, posterior)
        places = torch.searchsorted(torch.tensor([fewest for fewest, _ in self.norms.fits]), answered, right=True) - 1
        ranks = torch.stack([rank(table, fit) for _, table in self.norms.fits])
        columns["person_fit_percentile"] = ranks.gather(0, places.clamp(min=0)[None])[0]
        return columns


def rank(table: Table, values: Tensor) -> Tensor:
    """Percentiles of values, between a table's entries on a straight line."""
    points, percentiles = torch.tensor(table.values), torch.tensor(table.percentiles)
    above = torch.searchsorted(points, values.contiguous()).clamp(1, len(points) - 1)
    share = ((values - points[above - 1]) / (points[above] - points[above - 1])).clamp(0, 1)
    return torch.lerp(percentiles[above - 1], percentiles[above], share)
