"""What goes along with the traits: each covariate has a likelihood of its kind, given the named traits.

Two steps (compare Bakk & Kuha 2018): items and prior are finished first, then each covariate is regressed on the traits
over people's posterior draws, so that covariates bend neither traits nor profiles. The likelihood that is maximised is
the marginal one, log sum_s m_s p(x | theta_s), m being the draws' masses given the answers.
Shapes: B people, T traits, S draws, C covariates; numbers are float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from model.covariate_heads import CovariateHead
from model.errors import ModelError
from model.inputs import HELD_OUT_FOLD, READ_ROWS, open_parquet
from model.network import ProfileNetwork
from model.spec import CovariateSpec, FeatureSpec

MOST_PEOPLE = 16_384
DRAWS = 32  # of each person
BLOCK = 1024
FEWEST_KNOWN = 100  # people whose covariate is known: fewer teach nothing


@dataclass(frozen=True)
class CovariateFigures:
    """What one covariate has to do with the traits.

    `people` taught it, by level where it has levels. `cost` and `margin_cost` are minus the weighted mean log
    likelihood (nats) of the covariate of held-out people given their answers, and without them; None where nobody held
    out is known. `slopes` (outputs, T) are by one sd of a trait, the others held: log odds against the first level,
    sds of a continuous covariate, the logarithm of an expected count. Empty where too few people are known.
    """

    key: str
    kind: str
    people: int
    people_by_level: dict[str, int]
    slopes: list[list[float]]
    cost: float | None
    margin_cost: float | None


def fit_covariates(
    network: ProfileNetwork,
    categories: Tensor,
    weights: Tensor,
    folds: npt.NDArray[np.int64],
    values: npt.NDArray[np.float64],
) -> list[CovariateFigures]:
    """Fit the network's heads on people outside fold 0 who are known, and measure them on those inside.

    `categories` (B, J), `weights` (B), `folds` (B), `values` (B, C), NaN where not known.
    """
    if not len(network.covariates):
        return []
    count = min(MOST_PEOPLE, len(values))
    held = torch.from_numpy(folds[:count] == HELD_OUT_FOLD)
    traits, log_masses = _draw_traits(network, categories[:count])
    weights = weights[:count].double()
    columns = torch.from_numpy(values[:count]).T
    figures = []
    for head, column in zip(network.covariates, columns, strict=True):
        assert isinstance(head, CovariateHead)
        known = ~column.isnan() & (weights > 0)
        teaching, judging = torch.nonzero(known & ~held)[:, 0], torch.nonzero(known & held)[:, 0]
        figures.append(_fit_head(head, traits, log_masses, column, weights, teaching, judging))
    return figures


def _fit_head(
    head: CovariateHead, traits: Tensor, log_masses: Tensor, values: Tensor, weights: Tensor, *parts: Tensor
) -> CovariateFigures:
    teaching, judging = parts
    spec, taught = head.spec, values[teaching]
    by_level = {level: int((taught == number).sum()) for number, level in enumerate(spec.levels)}
    if len(teaching) < FEWEST_KNOWN or len(torch.unique(taught)) < 2:
        return CovariateFigures(spec.key, spec.kind, len(teaching), by_level, [], None, None)
    head.start(taught, weights[teaching])
    # No traits at all: the best that the margins can do.
    head.fit(torch.zeros_like(traits[:1, teaching]), torch.zeros(1, len(teaching)), taught, weights[teaching])
    margin = _cost(head, traits, log_masses, values, weights, judging)
    head.slopes.zero_()
    head.fit(traits[:, teaching], log_masses[:, teaching], taught, weights[teaching])
    cost = _cost(head, traits, log_masses, values, weights, judging)
    return CovariateFigures(spec.key, spec.kind, len(teaching), by_level, head.slopes.tolist(), cost, margin)


def _cost(
    head: CovariateHead, traits: Tensor, log_masses: Tensor, values: Tensor, weights: Tensor, people: Tensor
) -> float | None:
    if not len(people):
        return None
    found = head(traits[:, people], log_masses[:, people], values[people])
    return float(-(weights[people] * found).sum() / weights[people].sum())


@torch.no_grad()
def _draw_traits(network: ProfileNetwork, categories: Tensor) -> tuple[Tensor, Tensor]:
    """Named traits (S, B, T) of draws given the answers of `categories` (B, J), and their log masses (S, B)."""
    traits, log_masses = [], []
    for block in torch.split(categories, BLOCK):
        drawn = network.infer(block, DRAWS)
        traits.append(drawn.latents[..., : network.traits].double())
        log_masses.append(drawn.log_weights.double().log_softmax(dim=0))
    return torch.cat(traits, dim=1), torch.cat(log_masses, dim=1)


def read_covariates(paths: Sequence[Path], spec: FeatureSpec, count: int) -> npt.NDArray[np.float64]:
    """Covariates (rows, C) of the files' first `count` people: numbers, or a level's position; NaN = not known.

    Raises ModelError naming columns that are missing, hold other levels, or counts that are none.
    """
    parts, left = [np.empty((0, len(spec.covariates)))], count
    keys = [part.key for part in spec.covariates]
    for path in paths if keys else ():
        with open_parquet(path) as file:
            if missing := sorted(set(keys) - set(file.schema_arrow.names)):
                raise ModelError(f"{path.name} has no covariate {', '.join(missing)}: make the features again.")
            for batch in file.iter_batches(min(READ_ROWS, left), columns=keys):
                if left <= 0:
                    break
                columns = [_read_column(batch.column(part.key), part, path) for part in spec.covariates]
                parts.append(np.stack(columns, axis=1)[:left])
                left -= len(parts[-1])
        if left <= 0:
            break
    return np.concatenate(parts)


def _read_column(column: pa.Array, spec: CovariateSpec, path: Path) -> npt.NDArray[np.float64]:
    if spec.levels:
        position = pc.index_in(column, pa.array(spec.levels, pa.string()))
        if unknown := position.null_count - column.null_count:
            raise ModelError(f"{path.name}: {unknown} rows of covariate {spec.key} hold none of its levels.")
    else:
        position = column
    values: npt.NDArray[np.float64] = position.to_numpy(zero_copy_only=False).astype(np.float64)
    known = values[~np.isnan(values)]
    if not np.isfinite(known).all():
        raise ModelError(f"{path.name}: covariate {spec.key} holds numbers that are not finite.")
    if spec.kind == "count" and ((known < 0) | (known != np.round(known))).any():
        raise ModelError(f"{path.name}: covariate {spec.key} is a count, but some rows are negative or not whole.")
    return values
