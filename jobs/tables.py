"""The tables' columns: one list a table drives its schema, its files' metadata and the data dictionary."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from expectations.codebook import Codebook, Cohort, Scale

ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "tinyint": pa.int8(),
    "smallint": pa.int16(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "array<string>": pa.list_(pa.string()),
}


@dataclass(frozen=True)
class ColumnSpec:
    """A column: its Spark SQL type, what it means, its unit, and where its rule comes from."""

    name: str
    type: str
    meaning: str
    unit: str = ""
    source: str = ""
    nullable: bool = True


def arrow_schema(columns: Sequence[ColumnSpec]) -> pa.Schema:
    """The Arrow schema; each column's meaning stands in the file's key-value metadata as `meaning.<column>`."""
    fields = [pa.field(c.name, ARROW_TYPES[c.type], c.nullable) for c in columns]
    return pa.schema(fields, {f"meaning.{c.name}": c.meaning for c in columns})


def select_columns(frame: DataFrame, columns: Sequence[ColumnSpec]) -> DataFrame:
    """The frame with exactly these columns and types; Spark keeps each comment in the file's key-value metadata."""
    return frame.select(*[F.col(c.name).cast(c.type).alias(c.name, metadata={"comment": c.meaning}) for c in columns])


PERSON = ColumnSpec("person_id", "string", "Pseudonym: HMAC-SHA256 of the delivered id", nullable=False)
DESIGN = (
    ColumnSpec("weight", "double", "Survey weight", "people represented", nullable=False),
    ColumnSpec("stratum", "string", "Sampling stratum", nullable=False),
    ColumnSpec("psu", "string", "Primary sampling unit; carries its stratum where labels repeat", nullable=False),
)


def cohort_columns(book: Codebook) -> list[ColumnSpec]:
    return [ColumnSpec(c.key, "string", _list_groups(c)) for c in book.cohorts]


def _list_groups(cohort: Cohort) -> str:
    words = [f"{group} = {cohort.words[group]}" if group in cohort.words else group for group in cohort.groups]
    return f"{cohort.label or cohort.key}: {', '.join(words)}; null outside all groups"


def accepted_columns(book: Codebook) -> list[ColumnSpec]:
    """The codebook's columns of an accepted row, read as their types, missing codes still in place."""
    types = {"number": "double", "text": "string", "time": "timestamp"}
    kept = {name: kind for name, kind in book.column_types().items() if name != book.person_id}
    columns = [ColumnSpec(n, types[k], f"{n}, as delivered") for n, k in kept.items()]
    return [PERSON, *columns, ColumnSpec("source_file", "string", "File that the row came from")]


def quarantine_columns(book: Codebook) -> list[ColumnSpec]:
    """The codebook's columns as delivered, the id pseudonymised, and the names of the rules that the row breaks."""
    kept = [name for name in book.column_types() if name != book.person_id]
    return [
        ColumnSpec("person_id", "string", PERSON.meaning + "; null where none was delivered"),
        *[ColumnSpec(name, "string", f"{name}, as delivered") for name in kept],
        ColumnSpec("failed_rules", "array<string>", "Names of the rules that the row breaks", nullable=False),
        ColumnSpec("source_file", "string", "File that the row came from"),
    ]


def design_columns() -> list[ColumnSpec]:
    """The sample's full design, those PSUs too in which nobody is eligible."""
    return [*DESIGN[1:], ColumnSpec("rows", "bigint", "Delivered rows of the PSU, ineligible ones too", "rows")]


def scale_columns(scale: Scale) -> list[ColumnSpec]:
    rule = f"up to {scale.prorate_up_to} missing items prorated" if scale.prorate_up_to else "complete answers only"
    label = scale.label or scale.key
    return [
        ColumnSpec(f"{scale.key}_total", "double", f"{label}: total; {rule}", "points", scale.source),
        ColumnSpec(f"{scale.key}_band", "string", f"{label}: band of the total", "", scale.source),
    ]


def features_columns(book: Codebook) -> list[ColumnSpec]:
    """One row a person: item codes for the model, scale totals, covariates, cohorts, design."""
    items = [
        ColumnSpec(
            item.key,
            "tinyint",
            f"{item.label or item.key}: position of the answer among {len(item.levels)} levels from 0"
            + (", reversed" if item.reversed else "")
            + "; -1 = not answered",
            nullable=False,
        )
        for item in book.items
    ]
    covariates = [
        ColumnSpec(c.key, "double" if c.is_number else "string", c.label or c.key)
        for c in book.covariates
        if c.key not in {cohort.key for cohort in book.cohorts}
    ]
    scales = [column for scale in book.scales for column in scale_columns(scale)]
    fold = ColumnSpec("fold", "tinyint", "0-9 from the pseudonym; fold 0 is held out of training", nullable=False)
    return [PERSON, *items, *scales, *covariates, *cohort_columns(book), *DESIGN, fold]


def profiles_columns(book: Codebook) -> list[ColumnSpec]:
    """One row a person: where they stand on each trait, how sure that is, and their scale totals."""
    columns = [PERSON, ColumnSpec("model_version", "string", "Model that made the profile", nullable=False)]
    for trait in book.traits:
        label = f"{trait.label or trait.key}, higher = more distress"
        columns += [
            ColumnSpec(f"{trait.key}_mean", "float", f"{label}: posterior mean", "reference sd", nullable=False),
            ColumnSpec(f"{trait.key}_sd", "float", f"{label}: posterior sd", "reference sd", nullable=False),
            ColumnSpec(f"{trait.key}_percentile", "float", f"{label}: rank among the reference's profiles", "0-100"),
            ColumnSpec(f"{trait.key}_percentile_low", "float", f"{label}: true rank in the reference, 5 %", "0-100"),
            ColumnSpec(f"{trait.key}_percentile_high", "float", f"{label}: true rank in the reference, 95 %", "0-100"),
        ]
    for scale in book.scales:
        columns += scale_columns(scale)
        meaning = f"{scale.label or scale.key}: total expected under the model, answered items as answered"
        columns.append(ColumnSpec(f"{scale.key}_expected", "float", meaning, "points", nullable=False))
        if scale.cut:
            meaning = f"{scale.label or scale.key}: probability that a complete total would be {scale.cut}"
            columns.append(ColumnSpec(f"{scale.cut_outcome}_probability", "float", meaning, "0-1", nullable=False))
    columns += [
        ColumnSpec("items_answered", "smallint", "Items that the person answered", "items", nullable=False),
        ColumnSpec("log_likelihood", "float", "Importance-weighted bound of the answers", "nats", nullable=False),
        ColumnSpec(
            "person_fit_percentile",
            "float",
            "Person fit (l_z) among people who answered as many items; low = unusual answers",
            "0-100",
        ),
    ]
    return [*columns, *cohort_columns(book), *DESIGN]


def explanations_columns() -> list[ColumnSpec]:
    """One row for each person, trait and answer: made on request, for a published night."""
    moved = (
        "Posterior mean of the trait with every answer less the mean without this one; above 0, the answer raised it. "
        "Answers share what they say, so a person's moves do not add up to the mean"
    )
    return [
        PERSON,
        ColumnSpec("trait", "string", "Trait that moved", nullable=False),
        ColumnSpec("item", "string", "Item whose answer moved it; items without an answer have no row", nullable=False),
        ColumnSpec("moved", "float", moved, "reference sd", nullable=False),
    ]


def estimates_columns(book: Codebook, internal: bool) -> list[ColumnSpec]:
    """A row is one estimate: an outcome in one cell of a breakdown."""
    rounding = "" if internal else "; rounded for disclosure control"
    columns = [
        ColumnSpec("breakdown", "string", "Cohorts that define the cell, joined by *; all = everybody", nullable=False),
        *cohort_columns(book),
        ColumnSpec("outcome", "string", "What is estimated", nullable=False),
        ColumnSpec("kind", "string", "mean or proportion", nullable=False),
        ColumnSpec("n", "bigint", "People in the cell with an answer" + rounding, "people"),
        ColumnSpec("n_weighted", "double", "Sum of their weights" + rounding, "people represented"),
        ColumnSpec("estimate", "double", "Design-based estimate" + rounding, "of the outcome; proportions 0-1"),
        ColumnSpec("se", "double", "Standard error, Taylor linearisation" + rounding, "as the estimate"),
        ColumnSpec("df", "bigint", "Degrees of freedom: PSUs less strata with an answer in the cell"),
        ColumnSpec("ci_low", "double", "Lower 95 % confidence limit" + rounding, "as the estimate"),
        ColumnSpec("ci_high", "double", "Upper 95 % confidence limit" + rounding, "as the estimate"),
        ColumnSpec("ci_method", "string", "t or korn-graubard"),
        ColumnSpec("deff", "double", "Design effect" + ("" if internal else "; withheld: it gives counts away")),
        ColumnSpec("presentation", "string", "present, review, footnote or suppress (NCHS Series 2 No. 175)"),
        ColumnSpec("disclosure", "string", "shown, suppressed or complementary"),
        ColumnSpec("reason", "string", "Why a figure is missing or flagged"),
    ]
    if internal:
        columns.insert(-3, ColumnSpec("n_cases", "bigint", "People in the cell with the outcome, unweighted", "people"))
        meaning = "Series of the unit of a trait's mean: nights of different series cannot be compared; null for totals"
        columns.append(ColumnSpec("model_series", "string", meaning))
    return columns


def quality_columns() -> list[ColumnSpec]:
    """What came in and where it went, rounded as the cohorts are."""
    return [
        ColumnSpec("stage", "string", "delivered, ineligible, duplicates, quarantined or features", nullable=False),
        ColumnSpec("reason", "string", "Rule that rows broke; null for the stage's total"),
        ColumnSpec("rows", "bigint", "Rows, rounded; null where suppressed", "rows"),
        ColumnSpec("disclosure", "string", "shown or suppressed", nullable=False),
    ]


TABLES: dict[str, Callable[[Codebook], list[ColumnSpec]]] = {
    "accepted": accepted_columns,
    "quarantine": quarantine_columns,
    "design": lambda book: design_columns(),
    "features": features_columns,
    "profiles": profiles_columns,
    "explanations": lambda book: explanations_columns(),
    "cohorts_internal": lambda book: estimates_columns(book, internal=True),
    "cohorts": lambda book: estimates_columns(book, internal=False),
    "quality": lambda book: quality_columns(),
}
