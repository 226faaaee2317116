"""A model of the simulated population, and feature files as large as a benchmark asks for."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from expectations.codebook import read_codebook
from jobs.tables import arrow_schema, profiles_columns
from model.spec import PERSON

ROWS_PER_GROUP, ROWS_PER_FILE = 131_072, 524_288


@dataclass(frozen=True)
class Population:
    """A model's folder, feature files, and the columns of the profiles to be made of them."""

    model: Path
    features: list[Path]
    rows: int
    schema: pa.Schema


def make_population(lake: Path, folder: Path, rows: int, rows_per_file: int) -> Population:
    """Of a lake with one night: its model, and `rows` people drawn from its features, each with a new pseudonym."""
    [manifest] = (lake / "restricted/runs").glob("*/[0-9]*.json")
    stages = json.loads(manifest.read_text())["stages"]
    files = [lake / file["path"] for file in stages["preprocess"]["tables"]["features"]]
    people = pa.concat_tables([pq.read_table(file) for file in files]).combine_chunks()
    random = np.random.default_rng(1)
    folder.mkdir(parents=True)
    features = []
    for number, start in enumerate(range(0, rows, rows_per_file)):
        count = min(rows_per_file, rows - start)
        drawn = people.take(random.integers(0, len(people), count))
        names = os.urandom(32 * count).hex()
        named = pa.array([names[place : place + 64] for place in range(0, 64 * count, 64)])
        drawn = drawn.set_column(drawn.schema.get_field_index(PERSON), drawn.schema.field(PERSON), named)
        features.append(folder / f"part-{number:03d}.parquet")
        pq.write_table(drawn, features[-1], compression="zstd", row_group_size=ROWS_PER_GROUP)
    book, _ = read_codebook("demo_population")
    return Population(lake / stages["train"]["details"]["folder"], features, rows, arrow_schema(profiles_columns(book)))
