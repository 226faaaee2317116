"""Which answers moved which trait: a person's posterior means with every answer, less those without one of them.

Each difference is of two posteriors that the encoder gives; nothing is approximated by gradients or sampling.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F

from model.inputs import read_codes
from model.network import ProfileNetwork
from model.registry import Model
from model.rewriting import Piece, rewrite_people
from model.scoring import BLOCK
from model.spec import MISSING, PERSON, FeatureSpec
from model.threads import fix_threads

ROWS_AT_ONCE = 524_288  # of the long table: a row group, and what a worker holds in memory


def explain(model: Model, batch: pa.RecordBatch | pa.Table) -> pa.Table:
    """The moves of a batch with `person_id` and the model's item columns: person_id, trait, item, moved.

    One row for each person, trait and answered item; people in the batch's order, then traits and items by name.
    `moved` is in sds of the reference population: above 0, the answer raised the trait. Who answered nothing has no
    row. Raises ModelError for columns that do not fit.
    """
    traits, items = [trait.key for trait in model.spec.traits], list(model.spec.columns)
    moved = measure_moves(model, read_codes(batch, model.spec))
    moved = moved[:, np.argsort(traits)][:, :, np.argsort(items)]
    people, trait, item = np.nonzero(~np.isnan(moved))
    return pa.table(
        {
            PERSON: batch.column(PERSON).take(pa.array(people)),
            "trait": _name(trait, sorted(traits)),
            "item": _name(item, sorted(items)),
            "moved": moved[people, trait, item],
        }
    )


def measure_moves(model: Model, codes: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
    """Moves (people, traits, items) of codes (people, items); NaN where there is no answer.

    A person gets the same bits whoever stands beside them, and the mean with every answer is the profile's own.
    """
    categories = model.network.categories(torch.from_numpy(codes))
    answered = categories >= 0
    people, items = torch.nonzero(answered, as_tuple=True)
    moved = torch.full((*codes.shape, model.network.traits), torch.nan)
    with fix_threads(1):
        full = _read_means(model.network, categories)
        for start in range(0, len(people), BLOCK):
            who, which = people[start : start + BLOCK], items[start : start + BLOCK]
            without = categories[who]
            without[torch.arange(len(who)), which] = MISSING
            moved[who, which] = full[who] - _read_means(model.network, without)
    return moved.transpose(1, 2).numpy()


@torch.no_grad()
def _read_means(network: ProfileNetwork, categories: Tensor) -> Tensor:
    """Posterior means (B, T) of categories (B, J), in blocks of the one shape that profiles are made in, too."""
    means = [torch.empty(0, network.traits)]
    for block in torch.split(categories, BLOCK) if len(categories) else ():
        padded = F.pad(block, (0, 0, 0, BLOCK - len(block)), value=MISSING)
        means.append(network.posterior(padded).mean[: len(block), : network.traits])
    return torch.cat(means)


def _name(positions: npt.NDArray[np.int64], names: list[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(positions, pa.int32()), pa.array(names)).cast(pa.string())


def count_people(spec: FeatureSpec) -> int:
    """So many people at once give no more than ROWS_AT_ONCE rows."""
    return max(1, ROWS_AT_ONCE // (len(spec.items) * len(spec.traits)))


def explain_file(model: Model, pieces: Sequence[Piece], explanations: Path, schema: pa.Schema) -> int:
    """Explain row groups of feature files into a new Parquet file; returns its rows.

    `schema` has the columns of `explain`, with their metadata. The file appears whole or not at all.
    Raises ModelError for columns that do not fit.
    """
    dictionary = [name for name in schema.names if name != "moved"]
    people = count_people(model.spec)
    return rewrite_people(
        pieces, model.spec, [PERSON], people, partial(explain, model), explanations, schema, dictionary
    )
