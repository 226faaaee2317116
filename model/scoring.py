"""Score people: a profile for every row of an Arrow batch, the same bits whoever stands beside them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.nn import functional as F

from model.arithmetic import EXACT, Arithmetic, on_device
from model.errors import ModelError
from model.inputs import read_codes
from model.keeping import Earlier, keep_profiles
from model.network import fixed_noise
from model.outlook import foretell
from model.registry import Model, load_model
from model.rewriting import Piece, rewrite_people
from model.spec import MISSING, PERSON
from model.threads import fix_threads
from model.weighing import weigh

# Rows go through the network in blocks of one shape, padded: a row's sums never depend on the batch. A GPU wants more
# at once than a core's cache holds.
BLOCK, GPU_BLOCK = 8192, 65_536
ROWS_PER_GROUP = 16 * BLOCK  # of the profiles written
DRAWS = 16  # from a person's posterior
TRAIT_PARTS = ("mean", "sd", "percentile", "percentile_low", "percentile_high")
NINETY_PERCENT = 1.6448536269514722  # posterior sds on either side
VERSION = "model_version"
FIT = "person_fit"  # in sds, before it is ranked

Columns = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Scorer:
    """Profiles by one model. `scale_weights` (J, S): what an item's score adds to each scale's total."""

    model: Model
    scale_weights: Tensor
    arithmetic: Arithmetic

    @staticmethod
    def load(folder: Path, arithmetic: Arithmetic = EXACT) -> "Scorer":
        """Raises ModelError as `load_model` does, and where this machine lacks the device."""
        arithmetic.check()
        model = load_model(folder)
        model.network.to(arithmetic.device)
        model.network.numbers = arithmetic.dtype
        rows = [[scale.multiply * (key in scale.items) for scale in model.spec.scales] for key in model.spec.columns]
        weights = torch.tensor(rows, dtype=torch.float32).reshape(len(rows), len(model.spec.scales))
        return Scorer(model, weights.to(arithmetic.device), arithmetic)

    @property
    def columns(self) -> pa.Schema:
        """Names and types of the columns that `score` gives, in order."""
        spec = self.model.spec
        fields = [pa.field(VERSION, pa.string())]
        for trait in spec.traits:
            fields += [pa.field(f"{trait.key}_{part}", pa.float32()) for part in TRAIT_PARTS]
        for scale in spec.scales:
            fields.append(pa.field(f"{scale.key}_expected", pa.float32()))
            if scale.cut:
                fields.append(pa.field(scale.cut_column, pa.float32()))
        fields += [pa.field("items_answered", pa.int16()), pa.field("log_likelihood", pa.float32())]
        return pa.schema([*fields, pa.field("person_fit_percentile", pa.float32())])

    def score(self, batch: pa.RecordBatch | pa.Table) -> pa.Table:
        """Profiles of a batch that has the model's item columns, in the batch's order.

        `<trait>_mean` and `_sd` are of the posterior, in units of the trait's sd in the reference population;
        `_percentile` is the mean's rank among the reference population's, `_percentile_low` and `_high` hold the
        person's true rank among the traits of that population with 90 %. `<scale>_expected` is the total with answered
        items as answered and the others' expectation under the posterior, `<scale>_ge10_probability` the probability
        that such a total reaches the cut. `log_likelihood` is the importance-weighted bound in nats, in expectation
        never above the true log-likelihood. `person_fit_percentile` is low for answers that are unusual among people
        who answered as many. Who answered
        nothing gets the prior (mean 0, sd 1 in the reference population), and no percentile.
        Raises ModelError for columns that do not fit.
        """
        codes = read_codes(batch, self.model.spec)
        answered = (codes != MISSING).sum(axis=1).astype(np.int16)
        size = BLOCK if self.arithmetic.device == "cpu" else GPU_BLOCK
        with fix_threads(1), on_device(self.arithmetic.device):
            blocks = [self._score_block(codes[start : start + size], size) for start in range(0, len(codes), size)]
        merged = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]} if blocks else {}
        arrays: dict[str, pa.Array] = {name: pa.array(column) for name, column in merged.items() if name != FIT}
        if blocks:
            ranks = self._rank(merged, answered)
            arrays |= {name: pa.array(column, mask=answered == 0) for name, column in ranks.items()}
        arrays[VERSION] = pa.repeat(self.model.model_version, len(codes))
        arrays["items_answered"] = pa.array(answered)
        return pa.table([arrays.get(field.name, pa.array([], field.type)) for field in self.columns], self.columns)

    def _rank(self, merged: Columns, answered: npt.NDArray[np.int16]) -> Columns:
        """Percentile columns of scored rows."""
        norms = self.model.norms
        ranks = {"person_fit_percentile": norms.rank_fit(merged[FIT], answered)}
        for trait in self.model.spec.traits:
            mean, half = merged[f"{trait.key}_mean"], NINETY_PERCENT * merged[f"{trait.key}_sd"]
            ranked = norms.rank(trait.key, mean, mean - half, mean + half)
            names = (f"{trait.key}_percentile{part}" for part in ("", "_low", "_high"))
            ranks |= dict(zip(names, ranked, strict=True))
        return ranks

    @torch.no_grad()
    def _score_block(self, codes: npt.NDArray[np.int8], size: int) -> Columns:
        """Float columns of up to `size` rows."""
        network, rows = self.model.network, len(codes)
        # Nobody's rows are answered throughout: what people skip costs more.
        padded = F.pad(torch.from_numpy(codes), (0, 0, 0, size - rows))
        categories = network.categories(padded.to(self.arithmetic.device))
        answered = categories >= 0
        posterior = network.posterior(categories)
        sd = posterior.sd()
        noise = fixed_noise(DRAWS, network.latents).to(categories.device)
        drawn, placed = weigh(network, posterior, categories, noise)
        outlook = foretell(network, placed, drawn.masses(), categories)
        totals = outlook.scores @ self.scale_weights
        columns = {
            "log_likelihood": torch.where(answered.any(dim=1), drawn.bound(), 0.0),
            FIT: network.person_fit(categories, posterior),
        }
        for position, trait in enumerate(network.spec.traits):
            columns[f"{trait.key}_mean"] = posterior.mean[:, position]
            columns[f"{trait.key}_sd"] = sd[:, position]
        for position, scale in enumerate(network.spec.scales):
            columns[f"{scale.key}_expected"] = totals[:, position]
            if scale.cut:
                columns[scale.cut_column] = outlook.cuts[scale.key]
        return {name: column[:rows].cpu().numpy() for name, column in columns.items()}


@dataclass
class Tally:
    """People of a file, those whose profile was kept, and what scoring the others took of the processor, in seconds."""

    rows: int = 0
    kept: int = 0
    seconds: float = 0.0


def score_file(
    scorer: Scorer, pieces: Sequence[Piece], profiles: Path, schema: pa.Schema, earlier: Earlier | None = None
) -> Tally:
    """Score row groups of feature files into a new Parquet file; the same file, with an `earlier` night, for less work.

    `schema` names the columns to write, with their types and metadata: the scorer's own, and the others, passed
    through from the features. `earlier` profiles are by the same model and arithmetic. The file appears whole or not at
    all. Raises ModelError for columns that do not fit, and for a profile that is not a number, naming its person by
    the pseudonym.
    """
    ours = set(scorer.columns.names)
    passed = [name for name in schema.names if name not in ours]
    tally = Tally()

    def score(table: pa.Table) -> pa.Table:
        start = time.thread_time()
        scored = scorer.score(table)
        tally.seconds += time.thread_time() - start
        return scored

    # Everybody's is the same, and text is slow to copy.
    kinds = pa.schema([field for field in scorer.columns if field.name != VERSION])
    kept = keep_profiles(score, kinds, scorer.model.spec, pieces, earlier) if earlier else None

    def make(table: pa.Table) -> pa.Table:
        if kept is None:
            scored = score(table)
        else:
            scored = kept.profiles.take(pa.array(kept.places[tally.rows : tally.rows + table.num_rows]))
            scored = scored.append_column(VERSION, pa.repeat(scorer.model.model_version, table.num_rows))
        tally.rows += table.num_rows
        _check_numbers(scored, table)
        columns = [(scored if name in ours else table).column(name) for name in schema.names]
        return pa.table(columns, names=schema.names)

    dictionary = [field.name for field in schema if field.name != PERSON and not pa.types.is_floating(field.type)]
    # Whose answers were compared already are not read again.
    spec = None if kept else scorer.model.spec
    rewrite_people(pieces, spec, passed, ROWS_PER_GROUP, make, profiles, schema, dictionary)
    tally.kept = kept.kept if kept else 0
    return tally


def _check_numbers(scored: pa.Table, people: pa.Table) -> None:
    for name, column in zip(scored.column_names, scored.columns, strict=True):
        if pa.types.is_floating(column.type) and pc.all(pc.is_finite(column)).as_py() is False:
            wrong = pc.invert(pc.fill_null(pc.is_finite(column), True))
            named = people.column(PERSON).filter(wrong).to_pylist() if PERSON in people.column_names else []
            raise ModelError(
                f"{name} is not a number for {pc.sum(wrong).as_py():,} people, {', '.join(named[:3]) or 'unnamed'} "
                "among them: nothing is published. Train a new model, or put an earlier one in force."
            )
