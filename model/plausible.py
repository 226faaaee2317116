"""Plausible values: joint draws of people's traits given their answers and what a latent regression conditions on.

Cohort means of profiles shrink towards everybody's mean, those of plausible values do not (Mislevy 1991). A person's
M values come from as many draws of the regression's parameters, so that these are known no better than they are.
Shapes: B people, M values, S candidate draws, T traits, Q effects of the regression, P PSUs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F

from model.candidates import DRAWS, Unsigned, draw_candidates, draw_noise, draw_normal, draw_uniform, seed_people
from model.conditioning import Conditioning, Terms
from model.errors import ModelError
from model.inputs import read_codes
from model.latent_regression import Evidence, Parameters, Regression, fit_regression
from model.network import ProfileNetwork
from model.spec import PERSON
from model.threads import fix_threads

VALUES = 20  # M
MOST_PEOPLE = 65_536  # that the regression is found on, about
BLOCK = 2048
FARTHEST = 12.0  # trait sds: no plausible value lies beyond
COLLAPSED = 2.0  # effective draws: fewer say next to nothing of a person

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PlausibleValues:
    """`values` (B, M, T) in reference sds; `effective` draws (B) that stand behind each, NaN without an answer."""

    values: Floats
    effective: Floats


@dataclass(frozen=True)
class Imputer:
    """What a worker needs beside the network: the conditioning and the draws of the regression's parameters."""

    conditioning: Conditioning
    parameters: Parameters

    def draw(self, network: ProfileNetwork, people: pa.Table) -> PlausibleValues:
        """Plausible values of people with the model's item columns, `person_id` and the conditioning's columns.

        Weights must be above zero. Raises ModelError for columns that do not fit.
        """
        codes, terms = read_codes(people, network.spec), self.conditioning.read(people)
        seeds = seed_people(people[PERSON].to_pylist())
        with fix_threads(1), torch.no_grad():
            blocks = [self._draw_block(network, codes, terms, seeds, at) for at in range(0, len(codes), BLOCK)]
        values, effective = ([part[side] for part in blocks] for side in (0, 1))
        empty = torch.empty((0, *self._shape))
        return PlausibleValues(torch.cat([empty, *values]).numpy(), torch.cat([empty[:, 0, 0], *effective]).numpy())

    @property
    def _shape(self) -> tuple[int, int]:
        return len(self.parameters.factors), self.parameters.factors.shape[1]

    @cached_property
    def _table(self) -> Tensor:
        """Effects (Q + P, M T)."""
        effects = torch.from_numpy(self.parameters.effects).float()
        return effects.permute(1, 0, 2).flatten(1).contiguous()

    @cached_property
    def _factors(self) -> Tensor:
        return torch.from_numpy(self.parameters.factors).float()

    def _draw_block(
        self, network: ProfileNetwork, codes: npt.NDArray[np.int8], terms: Terms, seeds: Unsigned, start: int
    ) -> tuple[Tensor, Tensor]:
        """Values and effective draws of up to BLOCK people, padded to one shape."""
        some = slice(start, start + BLOCK)
        rows = len(codes[some])
        pad = (0, BLOCK - rows)
        categories = network.categories(F.pad(torch.from_numpy(codes[some]), (0, 0, *pad)))
        answered = (categories >= 0).any(dim=1)
        padded = np.pad(seeds[some], pad)
        middle = self._predict(terms, some, pad)
        values, factors = middle.shape[1], self._factors
        wide = torch.linalg.cholesky((factors @ factors.mT).mean(dim=0))
        noise = draw_noise(padded, DRAWS, network.latents)
        found = draw_candidates(network, categories, middle.mean(dim=1), wide, noise)
        theta = found.traits.permute(2, 1, 0).contiguous()
        mass = self._weigh(theta, found.log_weights.T, middle)
        total = mass.sum(dim=1)
        effective = total[:, 0].square() / mass[:, :, 0].square().sum(dim=1)
        mark = draw_uniform(padded, values) * total
        chosen = (mass.cumsum(dim=1) <= mark[:, None]).sum(dim=1).clamp(max=DRAWS - 1)
        resampled = theta.gather(1, chosen[:, :, None].expand(-1, -1, theta.shape[2]))
        if not bool(answered.all()):
            noise = draw_normal(padded, values, theta.shape[2])
            fresh = middle + torch.einsum("mij,bmj->bmi", factors, noise)
            resampled = torch.where(answered[:, None, None], resampled, fresh)
            effective = torch.where(answered, effective, torch.nan)
        return resampled.clamp(-FARTHEST, FARTHEST)[:rows], effective[:rows]

    def _predict(self, terms: Terms, some: slice, pad: tuple[int, int]) -> Tensor:
        """Means (B, M, T) of people's own priors."""
        size = self.conditioning.size
        places = np.concatenate([terms.effects[some], size + terms.psu[some, None]], axis=1)
        places, slope = np.pad(places, (pad, (0, 0))), np.pad(terms.log_weight[some], pad).astype(np.float32)
        found = F.embedding_bag(torch.from_numpy(places), self._table, mode="sum")
        found.add_(torch.from_numpy(slope)[:, None] * self._table[size - 1])
        return found.view(-1, *self._shape)

    def _weigh(self, theta: Tensor, log_weights: Tensor, middle: Tensor) -> Tensor:
        """Importance weights (B, S, M) of draws (B, S, T) under N(middle (B, M, T), Sigma_m), the largest about 1.

        (t - m)' K (t - m) is t'K t - 2 t'K m and a constant of the person: products of matrices.
        """
        precision = torch.cholesky_inverse(self._factors)
        row, column = torch.tril_indices(theta.shape[2], theta.shape[2])
        squares = theta[..., row] * theta[..., column]
        bends = -0.5 * precision[:, row, column] * torch.where(row == column, 1.0, 2.0)
        tilts = torch.einsum("mij,bmj->bim", precision, middle)
        logs = (squares @ bends.T).baddbmm_(theta, tilts).add_(log_weights[:, :, None])
        return logs.sub_(logs.amax(dim=1, keepdim=True)).exp_()


def choose_people(people: pa.Table, everybody: int) -> pa.Table:
    """Those with a weight above zero; of more than MOST_PEOPLE a sample, by the pseudonym alone."""
    chosen = people["weight"].to_numpy() > 0
    if everybody > MOST_PEOPLE:
        share = MOST_PEOPLE / everybody
        chosen[chosen] = draw_uniform(seed_people(people.filter(pa.array(chosen))[PERSON].to_pylist()), 1)[:, 0] < share
    return people.filter(pa.array(chosen))


def find_regression(network: ProfileNetwork, conditioning: Conditioning, people: pa.Table) -> Regression:
    """The latent regression of people, each once, with weights above zero; their order changes nothing.

    Raises ModelError where nobody is there.
    """
    if not len(people):
        raise ModelError("Nobody has a weight above zero: there is no regression of the traits.")
    people = people.sort_by(PERSON)
    codes, seeds = read_codes(people, network.spec), seed_people(people[PERSON].to_pylist())
    first, wide = network.prior.moments()
    traits = network.traits
    with fix_threads(1), torch.no_grad():
        parts = []
        for at in range(0, len(codes), BLOCK):
            categories = network.categories(torch.from_numpy(codes[at : at + BLOCK]))
            noise = draw_noise(seeds[at : at + BLOCK], DRAWS, network.latents)
            middle = first[:traits].expand(len(categories), -1)
            parts.append(draw_candidates(network, categories, middle, wide[:traits, :traits], noise))
        evidence = Evidence(
            torch.cat([part.traits for part in parts], dim=2),
            torch.cat([part.log_weights for part in parts], dim=1),
            conditioning.read(people),
            people["weight"].to_numpy(),
        )
        start = wide[:traits, :traits].double().numpy()
        return fit_regression(evidence, conditioning.size, len(conditioning.psus), start)


@dataclass(frozen=True)
class EffectiveDraws:
    """How many people have how many effective draws: counts of halves of a draw."""

    counts: npt.NDArray[np.int64]

    @staticmethod
    def of(effective: Iterable[Floats]) -> "EffectiveDraws":
        counts = np.zeros(2 * DRAWS + 1, dtype=np.int64)
        for part in effective:
            counts += np.bincount((2 * part[np.isfinite(part)]).astype(np.int64), minlength=len(counts))
        return EffectiveDraws(counts)

    def describe(self) -> dict[str, float | None]:
        """Mean, 5 % quantile, and share of people below COLLAPSED; null where nobody answered."""
        people = int(self.counts.sum())
        if not people:
            return {"mean": None, "quantile_05": None, "share_under_2": None}
        sizes = np.arange(len(self.counts)) / 2
        low = int(np.searchsorted(np.cumsum(self.counts), 0.05 * people))
        return {
            "mean": round(float((sizes + 0.25) @ self.counts) / people, 1),
            "quantile_05": float(sizes[low]),
            "share_under_2": round(float(self.counts[sizes < COLLAPSED].sum()) / people, 6),
        }
