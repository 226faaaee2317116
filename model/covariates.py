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
from model.inputs import HELD_OUT_FOLD, READ_ROWS, People, open_parquet, read_codes
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


def fit_rare(
    network: ProfileNetwork, figures: Sequence[CovariateFigures], paths: Sequence[Path], weight_column: str | None
) -> list[CovariateFigures]:
    """The figures, and heads, of `fit_covariates`, with covariates that too few of its people have fitted on others.

    What clinicians find, say, is known of few: then all people of whom it is are looked for. They need not be like the
    others, for a head is of the covariate given the traits.
    """
    found = list(figures)
    for place, (head, before) in enumerate(zip(network.covariates, figures, strict=True)):
        assert isinstance(head, CovariateHead)
        if before.people >= FEWEST_KNOWN:
            continue
        people, values = read_known(paths, network.spec, weight_column, head.spec)
        if len(values) < FEWEST_KNOWN:
            continue
        traits, log_masses = _draw_traits(network, network.categories(torch.from_numpy(people.codes)))
        weights = torch.from_numpy(people.weights / people.weights.mean()).double()
        held = torch.from_numpy(people.folds == HELD_OUT_FOLD)
        parts = (torch.nonzero(chosen & (weights > 0))[:, 0] for chosen in (~held, held))
        found[place] = _fit_head(head, traits, log_masses, torch.from_numpy(values), weights, *parts)
    return found


def read_known(
    paths: Sequence[Path], spec: FeatureSpec, weight_column: str | None, part: CovariateSpec
) -> tuple[People, npt.NDArray[np.float64]]:
    """The files' first people of whom a covariate is known, MOST_PEOPLE at most, and its values.

    Raises ModelError as `read_covariates` does, but for a column that is missing.
    """
    kept, left = [], MOST_PEOPLE
    for path in paths:
        with open_parquet(path) as file:
            names = [*spec.columns, "fold", *([weight_column] if weight_column else []), part.key]
            for batch in file.iter_batches(READ_ROWS, columns=names):
                rows = batch.filter(batch.column(part.key).is_valid())[:left]
                weights = rows.column(weight_column).to_numpy() if weight_column else np.ones(len(rows))
                people = (read_codes(rows, spec), weights.astype(np.float64), rows.column("fold").to_numpy())
                kept.append((*people, _read_column(rows.column(part.key), part, path)))
                left -= len(rows)
                if left <= 0:
                    break
        if left <= 0:
            break
    codes, weights, folds, values = (np.concatenate(columns) for columns in zip(*kept, strict=True))
    return People(codes, weights, folds.astype(np.int64)), values


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
