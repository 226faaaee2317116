"""The tables' columns: one list a table drives its schema, its files' metadata and the data dictionary."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from expectations.codebook import Codebook
from expectations.codebook_parts import Cohort, Item, Scale
from expectations.feedback import Confirmed

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
    "date": pa.date32(),
    "array<string>": pa.list_(pa.string()),
    "array<double>": pa.list_(pa.float64()),
}


PRESENTATIONS = (
    ("present", "fit to be shown"),
    ("review", "to be looked at by a statistician first"),
    ("footnote", "to be shown with a note"),
    ("suppress", "not to be used: too uncertain, or withheld"),
)
DISCLOSURES = (
    ("shown", "may be published"),
    ("suppressed", "withheld: of too few people, or such a figure would follow from it"),
)
LABELS = (
    ("suppressed", "for its own sake: of too few people, or too few moved"),
    ("complementary", "a suppressed figure would follow from it"),
)
KINDS = (
    ("mean", "weighted mean"),
    ("proportion", "weighted share of people, 0-1"),
    ("standardised", "mean or share with the standard population's groups, as the codebook's `standard` has them"),
    ("total", "estimated number of people with the outcome"),
    ("ratio", "ratio of two totals"),
    ("quantile", "value that so many percent do not pass"),
    ("change", "estimate less that of an earlier release"),
)
NOISE_SE = "Part of se that the noise of differential privacy is expected to add; null in releases without it"
FATES = (
    ("delivered", "rows of the extract"),
    ("ineligible", "not eligible for the survey's question"),
    ("duplicates", "superseded by a later row of the same person"),
    ("quarantined", "set aside: a rule is broken"),
    ("withdrawn", "withdrawn at the person's request"),
    ("features", "used for the estimates"),
)
STAGES = (
    *FATES,
    ("warned", "the extract differs from the one before; `reason` names how, and there is no count"),
    ("response", "people with an accepted row, of the eligible ones"),
    ("answered", "people whose scale has a total, of those used for the estimates"),
)

Categories = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ColumnSpec:
    """A column: its Spark SQL type, what it means, its unit, what it is taken from, and how it is made of that.

    `categories` are the values that a column of words can have, each with what it stands for.
    """

    name: str
    type: str
    meaning: str
    unit: str = ""
    source: str = ""
    nullable: bool = True
    rule: str = ""
    categories: Categories = ()


def arrow_schema(columns: Sequence[ColumnSpec]) -> pa.Schema:
    """The Arrow schema; each column's meaning stands in the file's key-value metadata as `meaning.<column>`."""
    fields = [pa.field(c.name, ARROW_TYPES[c.type], c.nullable) for c in columns]
    return pa.schema(fields, {f"meaning.{c.name}": c.meaning for c in columns})


def select_columns(frame: DataFrame, columns: Sequence[ColumnSpec]) -> DataFrame:
    """The frame with exactly these columns and types; Spark keeps each comment in the file's key-value metadata."""
    return frame.select(*[F.col(c.name).cast(c.type).alias(c.name, metadata={"comment": c.meaning}) for c in columns])


PERSON = ColumnSpec(
    "person_id", "string", "Pseudonym of the person", "", "the delivered id", False, "HMAC-SHA256 under the lake's key"
)
WEIGHT = "Survey weight; carries that of lost people of its stratum, and meets the codebook's margins where it has any"
DESIGN = (
    ColumnSpec("weight", "double", WEIGHT, "people represented", nullable=False),
    ColumnSpec("stratum", "string", "Sampling stratum", nullable=False),
    ColumnSpec("psu", "string", "Primary sampling unit; carries its stratum where labels repeat", nullable=False),
)

REPLICATES = ColumnSpec(
    "replicate_weights",
    "array<double>",
    "Replicate weights in the codebook's order, each times what the person's weight was multiplied by",
    "people represented",
    nullable=False,
)

SERIES = ColumnSpec(
    "model_series",
    "string",
    "Series of the unit of a trait: nights of different series cannot be compared; null for what is no trait",
    "",
    "the models' registry",
)


def cohort_columns(book: Codebook) -> list[ColumnSpec]:
    return [
        ColumnSpec(
            c.key,
            "string",
            _list_groups(c),
            source=_name_column(c.column),
            rule=_word_groups(c),
            categories=tuple((group, c.read_group(group)) for group in c.groups),
        )
        for c in book.cohorts
    ]


def _list_groups(cohort: Cohort) -> str:
    words = [f"{group} = {cohort.words[group]}" if group in cohort.words else group for group in cohort.groups]
    return f"{cohort.label or cohort.key}: {', '.join(words)}; null outside all groups"


def _word_groups(cohort: Cohort) -> str:
    if cohort.map is not None:
        return ", ".join(f"{code} = {group}" for code, group in cohort.map.items())
    lows = zip(cohort.breaks or (), cohort.labels, strict=True)
    return ", ".join(f"{label} from {low:g}" for low, label in lows) + "; each ends before the next begins"


def accepted_columns(book: Codebook) -> list[ColumnSpec]:
    """The codebook's columns of an accepted row, read as their types, missing codes still in place."""
    types = {"number": "double", "text": "string", "time": "timestamp"}
    kept = {name: kind for name, kind in book.column_types().items() if name != book.person_id}
    columns = [ColumnSpec(n, types[k], f"{n}, as delivered", source=_name_column(n)) for n, k in kept.items()]
    return [PERSON, *columns, ColumnSpec("source_file", "string", "File that the row came from")]


def _name_column(column: str) -> str:
    return f"the extract's column {column}"


def quarantine_columns(book: Codebook) -> list[ColumnSpec]:
    """The codebook's columns as delivered, the id pseudonymised, and the names of the rules that the row breaks."""
    kept = [name for name in book.column_types() if name != book.person_id]
    return [
        replace(PERSON, meaning=PERSON.meaning + "; null where none was delivered", nullable=True),
        *[ColumnSpec(name, "string", f"{name}, as delivered", source=_name_column(name)) for name in kept],
        ColumnSpec("failed_rules", "array<string>", "Names of the rules that the row breaks", nullable=False),
        ColumnSpec("source_file", "string", "File that the row came from"),
    ]


def feedback_columns(book: Codebook) -> list[ColumnSpec]:
    """What was last said of each person's analysis; no columns where the codebook has no feedback."""
    if (told := book.feedback) is None:
        return []
    when = _name_column(told.given_at)
    columns = [PERSON, ColumnSpec("given_at", "timestamp", "When something was last said", source=when)]
    if told.helpful:
        source = _name_column(told.helpful.column)
        columns.append(ColumnSpec("helpful", "boolean", "Whether the person found the analysis helpful", source=source))
    if told.confirmed:
        columns.append(_confirmed_column("confirmed", book, told.confirmed))
        columns.append(ColumnSpec("confirmed_at", "timestamp", "When a clinician found that", source=when))
    return columns


def feedback_quarantine_columns(book: Codebook) -> list[ColumnSpec]:
    """Rows of feedback that break a rule, as delivered, the id pseudonymised."""
    said = [
        replace(c, type="string", meaning=f"{c.meaning}; as delivered", rule="", categories=())
        for c in feedback_columns(book)[1:]
        if c.name != "confirmed_at"
    ]
    rules = ColumnSpec("failed_rules", "array<string>", "Names of the rules that the row breaks", nullable=False)
    return [PERSON, *said, rules, ColumnSpec("source_file", "string", "File that the row came from")] if said else []


def _confirmed_column(name: str, book: Codebook, confirmed: Confirmed) -> ColumnSpec:
    scale = book.scale(confirmed.scale)
    rule = ", ".join(f"{code} = {band}" for code, band in confirmed.bands.items())
    meaning = f"{scale.label or scale.key}: severity that a clinician found, as a band of the scale"
    bands = tuple((band, f"from {low}") for band, low in scale.bands.items())
    return ColumnSpec(name, "string", meaning, source=_name_column(confirmed.column), rule=rule, categories=bands)


def design_columns() -> list[ColumnSpec]:
    """The sample's full design, those PSUs too in which nobody is eligible."""
    fpc = "PSUs of the stratum in the population, or the share of them in the sample; null where the codebook has none"
    return [
        *DESIGN[1:],
        ColumnSpec("rows", "bigint", "Delivered rows of the PSU, ineligible ones too", "rows"),
        ColumnSpec("fpc", "double", fpc),
    ]


def scale_columns(scale: Scale) -> list[ColumnSpec]:
    missing = f"up to {scale.prorate_up_to} missing items prorated" if scale.prorate_up_to else "complete answers only"
    rule = f"sum of {', '.join(scale.items)}" + (f", times {scale.multiply}" if scale.multiply > 1 else "")
    label, total = scale.label or scale.key, f"{scale.key}_total"
    bands = tuple((band, f"from {low}") for band, low in scale.bands.items())
    return [
        ColumnSpec(total, "double", f"{label}: total; {missing}", "points", scale.source, rule=f"{rule}; {missing}"),
        ColumnSpec(
            f"{scale.key}_band",
            "string",
            f"{label}: band of the total",
            source=scale.source,
            rule=f"band of {total}: " + (", ".join(f"{band} {low}" for band, low in bands) or "the scale has none"),
            categories=bands,
        ),
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
            source=_name_column(item.column),
            nullable=False,
            rule=", ".join(f"{code} becomes {place}" for code, place in _place_levels(item)) + "; anything else -1",
        )
        for item in book.items
    ]
    covariates = [
        ColumnSpec(c.key, "double" if c.is_number else "string", c.label or c.key, source=_name_column(c.column))
        for c in book.covariates
        if c.key not in {cohort.key for cohort in book.cohorts}
    ]
    scales = [column for scale in book.scales for column in scale_columns(scale)]
    fold = ColumnSpec("fold", "tinyint", "0-9 from the pseudonym; fold 0 is held out of training", nullable=False)
    replicates = [REPLICATES] if book.design.replicates else []
    told = book.feedback.confirmed if book.feedback else None
    confirmed = [_confirmed_column(told.key, book, told)] if told else []
    return [PERSON, *items, *scales, *covariates, *confirmed, *cohort_columns(book), *DESIGN, fold, *replicates]


def _place_levels(item: Item) -> list[tuple[int, int]]:
    """Each code of an answer and its position, turned round where the item is reversed."""
    return list(zip(reversed(item.levels) if item.reversed else item.levels, range(len(item.levels)), strict=True))


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
    kept = "" if internal else ", null where it would tell how few gave no answer"
    unit, profiles, design = "as the estimate", "profiles", "profiles, design"
    columns = [
        ColumnSpec("breakdown", "string", "Cohorts that define the cell, joined by *; all = everybody", nullable=False),
        *cohort_columns(book),
        ColumnSpec("outcome", "string", "What is estimated", "", "the codebook's outcomes", False),
        ColumnSpec("kind", "string", "Kind of figure: an outcome may have several", nullable=False, categories=KINDS),
        ColumnSpec(
            "n", "bigint", "People in the cell with an answer" + rounding + kept, "people", profiles, rule="count"
        ),
        ColumnSpec(
            "n_weighted",
            "double",
            "Sum of their weights" + rounding + kept,
            "people represented",
            profiles,
            rule="sum of weight",
        ),
        ColumnSpec(
            "estimate",
            "double",
            "Design-based estimate" + rounding,
            "of the outcome; proportions 0-1",
            design,
            rule="weighted, on the full design: people outside the cell weigh zero",
        ),
        ColumnSpec(
            "se",
            "double",
            "Standard error" + rounding,
            unit,
            design,
            rule="Taylor linearisation, PSUs with replacement within strata; or replicate weights, where delivered; "
            "for traits Taylor linearisation with what is not known of them, by Rubin's rules over plausible values",
        ),
        ColumnSpec(
            "df",
            "bigint",
            "Degrees of freedom of the cell",
            "",
            design,
            rule="PSUs less strata, of those with an answer in the cell; or the rank of their replicate weights less 1,"
            " where delivered; for traits Barnard and Rubin's, rounded down",
        ),
        ColumnSpec("ci_low", "double", "Lower 95 % confidence limit" + rounding, unit, rule="by ci_method"),
        ColumnSpec("ci_high", "double", "Upper 95 % confidence limit" + rounding, unit, rule="by ci_method"),
        ColumnSpec("ci_method", "string", "Method of the interval: t, korn-graubard, log-t or woodruff"),
        ColumnSpec(
            "deff",
            "double",
            "Design effect" + ("" if internal else "; withheld: it gives counts away"),
            "",
            design,
            rule="variance over that of a simple random sample of n people",
        ),
        ColumnSpec(
            "presentation",
            "string",
            "Whether the figure is reliable enough to be shown",
            source="NCHS, Vital and Health Statistics Series 2 No. 175 and 200",
            rule="the NCHS standards for proportions, rates and counts; for means a house rule",
            categories=PRESENTATIONS,
        ),
        ColumnSpec(
            "disclosure",
            "string",
            "Whether the figure may be published",
            rule="by the disclosure profile: small counts, then neighbours that would give them away",
            categories=DISCLOSURES,
        ),
        ColumnSpec("reason", "string", "Why a figure is missing or flagged"),
        ColumnSpec("since", "date", "Of a change: the night that it is a change from"),
    ]
    if internal:
        columns.insert(-4, ColumnSpec("n_cases", "bigint", "People in the cell with the outcome, unweighted", "people"))
    else:
        columns.append(ColumnSpec("noise_se", "double", NOISE_SE, unit))
    return [*columns, SERIES]


def suppressions_columns(book: Codebook) -> list[ColumnSpec]:
    """A row is a figure of `cohorts` that is withheld, which has one label there."""
    return [
        ColumnSpec("breakdown", "string", "Cohorts that define the cell, joined by *; all = everybody", nullable=False),
        *cohort_columns(book),
        ColumnSpec("outcome", "string", "What is estimated", "", "the codebook's outcomes", False),
        ColumnSpec("kind", "string", "Kind of figure: an outcome may have several", nullable=False, categories=KINDS),
        ColumnSpec("disclosure", "string", "What it is withheld for", "", "cohorts", False, categories=LABELS),
        ColumnSpec("reason", "string", "The rule that withholds it"),
    ]


def distributions_columns(book: Codebook) -> list[ColumnSpec]:
    """A row is the share of a cell's people whose trait lies in a bin: of everybody, and by single cohorts."""
    source = "plausible values"
    return [
        ColumnSpec("breakdown", "string", "Cohort that defines the cell; all = everybody", nullable=False),
        *cohort_columns(book),
        ColumnSpec("outcome", "string", "Trait, higher = more distress", "", "the codebook's traits", False),
        ColumnSpec("bin_low", "double", "Lower end of the bin; null = open", "reference sd", rule="part of the bin"),
        ColumnSpec("bin_high", "double", "Upper end of the bin; null = open", "reference sd", rule="not part of it"),
        ColumnSpec(
            "share",
            "double",
            "Share of the cell's people in the bin; null where withheld",
            "0-1",
            source,
            rule="weighted, mean over the plausible values, to 0.01; of cells of 100 people or more",
        ),
        ColumnSpec("n", "bigint", "People in the cell, as in cohorts", "people", "cohorts"),
        ColumnSpec(
            "disclosure",
            "string",
            "Whether the shares may be published",
            rule="where the cell's count is shown in cohorts, and is 100 or more",
            categories=DISCLOSURES,
        ),
        ColumnSpec("reason", "string", "Why the shares are missing"),
        SERIES,
    ]


def sums_columns(book: Codebook) -> list[ColumnSpec]:
    """What every estimate of a night is made of, kept so that a later night can tell the variance of a change."""
    return [
        ColumnSpec("breakdown", "string", "Cohorts that define the cell, joined by *; all = everybody", nullable=False),
        *cohort_columns(book),
        ColumnSpec("outcome", "string", "What is added up", nullable=False),
        *DESIGN[1:],
        ColumnSpec("n", "bigint", "People of the PSU in the cell with an answer", "people"),
        ColumnSpec("n_cases", "bigint", "Of them, those with an answer of 1", "people"),
        ColumnSpec("sum_w", "double", "Sum of their weights w", "people represented"),
        ColumnSpec("sum_wy", "double", "Sum of w times the answer y", "of the outcome"),
        ColumnSpec("sum_wyy", "double", "Sum of w times y squared", "of the outcome"),
    ]


def calibration_columns(book: Codebook) -> list[ColumnSpec]:
    """A row is a total between those of people looked at; no columns where no clinician confirms anything."""
    if book.feedback is None or book.feedback.confirmed is None:
        return []
    scale = book.scale(book.feedback.confirmed.scale)
    label, rule = scale.label or scale.key, "logistic regression on the total (Firth 1993), of those who were looked at"
    found = f"Probability that a clinician would find a severity at {scale.cut}"
    return [
        ColumnSpec("total", "double", f"{label}: total", "points", nullable=False),
        ColumnSpec("probability", "double", found, "0-1", "features, feedback", nullable=False, rule=rule),
        ColumnSpec("low", "double", "Lower 95 % confidence limit of the probability", "0-1", nullable=False),
        ColumnSpec("high", "double", "Upper 95 % confidence limit of the probability", "0-1", nullable=False),
    ]


def quality_columns() -> list[ColumnSpec]:
    """What came in and where it went, and who answered, rounded as the cohorts are.

    A profile that does not round withholds what would tell how few gave no answer.
    """
    return [
        ColumnSpec("stage", "string", "What became of the rows, or who answered", nullable=False, categories=STAGES),
        ColumnSpec(
            "reason",
            "string",
            "Rule that rows broke, scale that people answered; null for the stage's total",
            source="the codebook's rules and scales",
        ),
        ColumnSpec(
            "rows", "bigint", "Rows or people; null where suppressed", "rows", rule="count, rounded as in cohorts"
        ),
        ColumnSpec(
            "rate", "double", "Response rate, of response and answered", "0-1", rule="a rounded count over another"
        ),
        ColumnSpec(
            "rate_weighted",
            "double",
            "Response rate by weight, of response alone",
            "0-1",
            rule="accepted over eligible weight, each to three digits",
        ),
        ColumnSpec("disclosure", "string", "Whether the count is shown", nullable=False, categories=DISCLOSURES),
    ]


TABLES: dict[str, Callable[[Codebook], list[ColumnSpec]]] = {
    "accepted": accepted_columns,
    "quarantine": quarantine_columns,
    "feedback": feedback_columns,
    "feedback_quarantine": feedback_quarantine_columns,
    "design": lambda book: design_columns(),
    "features": features_columns,
    "profiles": profiles_columns,
    "explanations": lambda book: explanations_columns(),
    "cohort_sums": sums_columns,
    "calibration": calibration_columns,
    "cohorts_internal": lambda book: estimates_columns(book, internal=True),
    "suppressions": suppressions_columns,
    "cohorts": lambda book: estimates_columns(book, internal=False),
    "quality": lambda book: quality_columns(),
    "distributions": distributions_columns,
}
