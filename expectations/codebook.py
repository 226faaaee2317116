"""The codebook: what an extract's columns mean, as frozen models read from YAML."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from expectations.errors import ContractBroken
from expectations.outcomes import Outcome, parse_outcome
from expectations.replication import Method, Replication, choose_scales, spread_run

SHIPPED = Path(__file__).parent / "codebooks"
RESERVED = frozenset(
    (
        *("person_id", "answered_at", "weight", "stratum", "psu", "fold", "run_date", "source_file", "failed_rules"),
        *("model_version", "items_answered", "log_likelihood", "breakdown", "outcome", "kind", "n", "n_cases", "se"),
        *("n_weighted", "estimate", "df", "ci_low", "ci_high", "ci_method", "deff", "presentation", "disclosure"),
        *("reason", "since", "malformed", "unmatched", "eligible", "fate", "person_fit_percentile"),
        "replicate_weights",
    )
)
# Names of columns while rows are judged.
JUDGING = ("source_file", "malformed", "unmatched", "eligible", "failed_rules", "warned_rules", "fate")

Key = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
Column = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
# A column, or a run of numbered ones.
ColumnRun = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*(-[A-Za-z][A-Za-z0-9_]*)?$")]
# A name in the extract's folder or one below it: a codebook reaches no file outside.
FileName = Annotated[str, StringConstraints(pattern=r"^[^/\\]", min_length=1)]
# SQL that only computes: none of the functions that call code, fail on purpose, or change from run to run.
UNSAFE_SQL = re.compile(
    r"\b(reflect|try_reflect|java_method|raise_error|assert_true|select|input_file_\w+|current_\w+|now|rand\w*"
    r"|uuid|shuffle|monotonically_increasing_id|spark_partition_id)\b",
    re.IGNORECASE,
)


def _check_sql(sql: str) -> str:
    if found := UNSAFE_SQL.search(sql):
        raise ValueError(f"`{found[0]}` may not stand in a codebook's SQL: compare and compute with columns alone")
    return sql


Sql = Annotated[str, AfterValidator(_check_sql)]
ColumnType = Literal["number", "text", "time"]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(Part):
    """Where the answers lie: an entry of `files` is a name or a glob of parts; several entries are joined by `join`."""

    format: Literal["csv", "parquet", "sas_xport", "spss_sav"]
    files: tuple[FileName, ...] = Field(min_length=1)
    join: Column | None = None
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] = ","
    encoding: Literal["utf-8", "utf-8-sig", "iso-8859-1"] = "utf-8"

    @model_validator(mode="after")
    def check_join(self) -> Self:
        if any(".." in Path(name).parts for name in self.files):
            raise ValueError("`files` must lie in the extract's folder")
        if self.delimiter in '"\r\n':
            raise ValueError("`delimiter` cannot be a quote or a line break")
        if len(self.files) > 1 and self.join is None:
            raise ValueError("several files need `join`, the column that they share")
        return self


class Replicates(Part):
    """Replicate weights and the method that made them; an entry of `columns` may be a run, such as repwt1-repwt80.

    `rho` is Fay's factor; `scale`, `rscales` (one for each column) and `mse` are those of R's `svrepdesign`.
    """

    method: Method
    columns: tuple[ColumnRun, ...] = Field(min_length=1)
    rho: float | None = Field(default=None, ge=0, lt=1)
    scale: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    rscales: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] | None = None
    mse: bool = False

    @model_validator(mode="after")
    def check_scales(self) -> Self:
        self.choose_scales()
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for entry in self.columns for name in spread_run(entry))

    def choose_scales(self) -> Replication:
        return choose_scales(self.method, len(self.names), self.rho, self.scale, self.rscales, self.mse)


class Design(Part):
    """Weight, stratum and PSU columns; `nest` where PSU labels repeat between strata; R's word for a lonely PSU.

    `replicates`, where there are any, give the variance of all figures but traits' means. `fpc` is a column with the
    population's PSUs of the stratum, or the share of them that was sampled (up to 1).
    """

    weight: Column
    stratum: Column
    psu: Column
    fpc: Column | None = None
    replicates: Replicates | None = None
    nest: bool = False
    lonely_psu: Literal["fail", "adjust", "certainty", "remove", "average"] = "fail"


class Item(Part):
    """One question: the levels of its answers in score order, and the codes that mean no answer."""

    key: Key
    column: Column
    levels: tuple[int, ...] = Field(min_length=2)
    missing: tuple[int, ...] = ()
    reversed: bool = False
    label: str = ""

    @model_validator(mode="after")
    def check_levels(self) -> Self:
        if list(self.levels) != sorted(set(self.levels)):
            raise ValueError("`levels` must rise, each once")
        if set(self.levels) & set(self.missing):
            raise ValueError("a code stands in both `levels` and `missing`")
        return self

    @property
    def scores(self) -> tuple[int, ...]:
        """What each code adds to a total: the level, turned round where the item is reversed."""
        if not self.reversed:
            return self.levels
        return tuple(self.levels[0] + self.levels[-1] - level for level in reversed(self.levels))


class Scale(Part):
    """A sum score: each of `bands` starts at a total, `cut` is the screening rule; missing items may be prorated."""

    key: Key
    items: tuple[Key, ...] = Field(min_length=1)
    bands: dict[str, int] = {}
    cut: Annotated[str, StringConstraints(pattern=r"^(>=|<=)\d+$")] | None = None
    prorate_up_to: int = Field(default=0, ge=0)
    multiply: int = Field(default=1, ge=1)
    positive: bool = False
    label: str = ""
    source: str

    @property
    def cut_outcome(self) -> str:
        """The outcome that the cut defines: phq9_ge10."""
        return f"{self.key}_{'le' if (self.cut or '').startswith('<=') else 'ge'}{(self.cut or '')[2:]}"

    @model_validator(mode="after")
    def check_bands(self) -> Self:
        lows = list(self.bands.values())
        if lows != sorted(set(lows)):
            raise ValueError("`bands` overlap: their lowest totals must rise")
        if self.prorate_up_to >= len(self.items):
            raise ValueError("`prorate_up_to` must leave at least one answered item")
        return self


class Trait(Part):
    """A latent trait measured by one scale's items; higher = more distress (items of a positive scale are flipped)."""

    key: Key
    scale: Key
    label: str = ""


class Covariate(Part):
    """A variable that describes people: `min` and `max` bound a number, `levels` list a category's codes."""

    key: Key
    column: Column
    kind: Literal["continuous", "count", "binary", "nominal"]
    levels: tuple[int | str, ...] = ()
    min: float | None = None
    max: float | None = None
    missing: tuple[int | str, ...] = ()
    required: bool = False
    label: str = ""

    @model_validator(mode="after")
    def check_kind(self) -> Self:
        if self.is_number == bool(self.levels):
            raise ValueError("a binary or nominal covariate needs `levels`, a continuous one or a count has none")
        if self.is_number and not all(isinstance(code, int) for code in self.missing):
            raise ValueError("the `missing` codes of a number must be numbers")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("`min` is greater than `max`")
        return self

    @property
    def is_number(self) -> bool:
        return self.kind in ("continuous", "count")


class Cohort(Part):
    """A grouping of people: `map` names codes, or `breaks` (lower bounds, the last group open) names intervals.

    `words` says for readers what a group's name stands for.
    """

    key: Key
    column: Column
    map: dict[int | str, str] | None = None
    breaks: tuple[float, ...] | None = None
    labels: tuple[str, ...] = ()
    missing: tuple[int | str, ...] = ()
    words: dict[str, str] = {}
    label: str = ""

    @model_validator(mode="after")
    def check_groups(self) -> Self:
        if bool(self.map) == bool(self.breaks):
            raise ValueError("give either `map` or `breaks`")
        if self.breaks and not all(isinstance(code, int) for code in self.missing):
            raise ValueError("the `missing` codes of a number must be numbers")
        if self.breaks is not None:
            if list(self.breaks) != sorted(set(self.breaks)):
                raise ValueError("`breaks` overlap: each must be greater than the one before")
            if len(self.labels) != len(self.breaks):
                raise ValueError(f"{len(self.breaks)} `breaks` need as many `labels`, not {len(self.labels)}")
        if len(set(self.groups)) < len(self.labels):
            raise ValueError("two groups have the same label")
        unknown = sorted(set(self.words) - set(self.groups))
        if unknown:
            raise ValueError(f"`words` names the unknown group {unknown[0]}")
        return self

    @property
    def groups(self) -> tuple[str, ...]:
        return self.labels if self.map is None else tuple(dict.fromkeys(self.map.values()))

    def read_group(self, group: str) -> str:
        """The group in words that start with a capital."""
        words = self.words.get(group) or group.replace("_", " ")
        return words[:1].upper() + words[1:]


class Standard(Part):
    """The standard population of age-standardised rates: `shares` of it in every group of `cohort`, by `source`.

    Shares of any total: only their proportions count.
    """

    cohort: Key
    shares: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(min_length=1)
    source: str = Field(min_length=1)

    @property
    def normalised(self) -> dict[str, float]:
        """The shares, made to add up to 1."""
        total = math.fsum(self.shares.values())
        return {group: share / total for group, share in self.shares.items()}


class Margins(Part):
    """Known numbers of people: `counts` of every group of a cohort, to which weights are raked within `bounds`."""

    counts: dict[Key, dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]]] = Field(min_length=1)
    bounds: tuple[float, float] | None = None

    @model_validator(mode="after")
    def check_bounds(self) -> Self:
        if self.bounds and not 0 <= self.bounds[0] < self.bounds[1]:
            raise ValueError("`bounds` are the least and the largest factor of a weight, the first below the second")
        return self


class CustomRule(Part):
    """A rule of this survey's own: `sql` is true (or null) for a good row; columns by their names in the extract."""

    name: Key
    sql: Sql
    severity: Literal["row", "warn"] = "row"


class Drift(Part):
    """Limits of change against the last accepted extract: share of rows, and total variation of an item's answers."""

    row_count: float = Field(default=0.2, gt=0)
    answer_share: float = Field(default=0.1, gt=0, le=1)
    null_share: float = Field(default=0.1, gt=0, le=1)


class Calendar(Part):
    """Public releases lie `least_days` apart, and need `least_change` people who came, left or answered anew."""

    least_days: int = Field(default=1, ge=1)
    least_change: int = Field(default=0, ge=0)


class Disclosure(Part):
    """Disclosure control: the rule set, whether a person must sign a release off before it is published, and when.

    Without a calendar every night is released.
    """

    profile: Literal["opensafely", "midpoint6", "cms", "nhs_mhsds", "acro"] = "opensafely"
    review: bool = False
    calendar: Calendar | None = None


class Codebook(Part):
    codebook: Key
    version: int = Field(ge=1)
    title: str
    source: Source
    person_id: Column
    answered_at: Column | None = None
    design: Design
    eligible: Sql | None = None
    max_quarantine_share: float = Field(default=0.05, ge=0, le=1)
    retrain_days: int = Field(default=30, ge=1)
    items: tuple[Item, ...] = Field(min_length=1)
    scales: tuple[Scale, ...] = Field(min_length=1)
    traits: tuple[Trait, ...] = Field(min_length=1)
    covariates: tuple[Covariate, ...] = ()
    cohorts: tuple[Cohort, ...] = ()
    breakdowns: tuple[tuple[Key, ...], ...] = ((),)
    outcomes: tuple[str, ...] = Field(min_length=1)
    margins: Margins | None = None
    standard: Standard | None = None
    rules: tuple[CustomRule, ...] = ()
    drift: Drift = Drift()
    disclosure: Disclosure = Disclosure()
    # For readers of other languages: the codebook's own words (title, labels, groups, bands) and what they are there.
    translations: dict[Literal["zh"], dict[str, str]] = {}

    @model_validator(mode="after")
    def check_references(self) -> Self:
        problems = list(_find_dangling(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def item(self, key: str) -> Item:
        return next(item for item in self.items if item.key == key)

    def scale(self, key: str) -> Scale:
        return next(scale for scale in self.scales if scale.key == key)

    def parsed_outcomes(self) -> tuple[Outcome, ...]:
        scales, traits = {s.key for s in self.scales}, {t.key for t in self.traits}
        return tuple(parse_outcome(name, scales, traits) for name in self.outcomes)

    def replicate_columns(self) -> tuple[str, ...]:
        return self.design.replicates.names if self.design.replicates else ()

    def column_types(self) -> dict[str, ColumnType]:
        """The extract's columns that the codebook speaks of, in its order, and what each must be read as."""
        types: dict[str, ColumnType] = {self.person_id: "text"}
        if self.answered_at:
            types[self.answered_at] = "time"
        types |= {self.design.weight: "number", self.design.stratum: "text", self.design.psu: "text"}
        if self.design.fpc:
            types[self.design.fpc] = "number"
        types |= dict.fromkeys(self.replicate_columns(), "number")
        types |= {item.column: "number" for item in self.items}
        parts: tuple[Covariate | Cohort, ...] = (*self.covariates, *self.cohorts)
        for part in parts:
            types.setdefault(part.column, "number" if _holds_numbers(part) else "text")
        return types


def _holds_numbers(part: Covariate | Cohort) -> bool:
    codes: Iterable[int | str]
    codes = (*(part.levels if isinstance(part, Covariate) else part.map or ()), *part.missing)
    return all(isinstance(code, int) for code in codes)


def _repeated(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _find_dangling(book: Codebook) -> Iterator[str]:
    items, scales = {i.key for i in book.items}, {s.key: s for s in book.scales}
    named: list[tuple[str, Sequence[str]]] = [
        ("items", [i.key for i in book.items]),
        ("items: column", [i.column for i in book.items]),
        ("outcomes", book.outcomes),
        ("rules", [r.name for r in book.rules]),
    ]
    parts: tuple[Item | Scale | Trait | Covariate | Cohort, ...]
    parts = (*book.items, *book.scales, *book.traits, *book.covariates, *book.cohorts)
    for where, names in named:
        for name in _repeated(names):
            yield f"{where}: {name} stands there twice"
    # Items, scales, traits, covariates and cohorts become columns of one table.
    for name in _repeated(p.key for p in parts):
        if name not in _repeated(i.key for i in book.items):
            yield f"key {name}: used by two parts of the codebook"
    for part in parts:
        if part.key in RESERVED:
            yield f"key {part.key}: reserved for a column of the tables"
    made = [f"{s.key}_{what}" for s in book.scales for what in ("total", "band", "expected")]
    made += [f"{t.key}_{what}" for t in book.traits for what in ("mean", "sd", "percentile")]
    for name in sorted({part.key for part in parts} & set(made)) + _repeated(made):
        yield f"key {name}: this column is made of a scale or a trait"
    yield from _find_column_clashes(book)
    for scale in book.scales:
        for key in scale.items:
            if key not in items:
                yield f"scales: {scale.key} names the unknown item {key}"
        for key in _repeated(scale.items):
            yield f"scales: {scale.key} names the item {key} twice"
        if items.issuperset(scale.items):
            yield from _find_band_gap(book, scale)
    loaded: dict[str, str] = {}
    for trait in book.traits:
        if trait.scale not in scales:
            yield f"traits: {trait.key} names the unknown scale {trait.scale}"
            continue
        if len(scales[trait.scale].items) < 2:
            yield f"traits: {trait.key} needs a scale with at least two items"
        for key in scales[trait.scale].items:
            if key in loaded:
                yield f"traits: item {key} would load on both {loaded[key]} and {trait.key}"
            loaded[key] = trait.key
    yield from _find_strange_margins(book)
    yield from _find_strange_standard(book)
    cohorts = {c.key for c in book.cohorts}
    for breakdown in book.breakdowns:
        for key in breakdown:
            if key not in cohorts:
                yield f"breakdowns: unknown cohort {key}"
        if _repeated(breakdown):
            yield f"breakdowns: {'*'.join(breakdown)} names a cohort twice"
    for name in _repeated("*".join(sorted(b)) or "all" for b in book.breakdowns):
        yield f"breakdowns: {name} stands there twice"
    yield from _find_wrong_outcomes(book)
    if book.source.join not in (None, book.person_id):
        yield f"source.join: must be the person_id column {book.person_id}"


def _find_strange_margins(book: Codebook) -> Iterator[str]:
    groups = {cohort.key: cohort.groups for cohort in book.cohorts}
    for cohort, counts in (book.margins.counts if book.margins else {}).items():
        if cohort not in groups:
            yield f"margins: unknown cohort {cohort}"
            continue
        for group in counts:
            if group not in groups[cohort]:
                yield f"margins: {cohort} has no group {group}"


def _find_strange_standard(book: Codebook) -> Iterator[str]:
    if book.standard is None:
        return
    groups = {cohort.key: cohort.groups for cohort in book.cohorts}.get(book.standard.cohort)
    if groups is None:
        yield f"standard: unknown cohort {book.standard.cohort}"
        return
    for group in book.standard.shares:
        if group not in groups:
            yield f"standard: {book.standard.cohort} has no group {group}"
    for group in groups:
        if group not in book.standard.shares:
            yield f"standard: {book.standard.cohort} has the group {group}, of which there is no share"


def _find_wrong_outcomes(book: Codebook) -> Iterator[str]:
    scales, traits = {s.key for s in book.scales}, {t.key for t in book.traits}
    for name in book.outcomes:
        try:
            outcome = parse_outcome(name, scales, traits)
        except ValueError as error:
            yield f"outcomes: {error}"
            continue
        if outcome.over:
            # What may be told of a ratio is judged by what may be told of its parts.
            for part in outcome.part_names():
                if part not in book.outcomes:
                    yield f"outcomes: {name} needs {part} among the outcomes"
        if outcome.kind == "quantile" and outcome.source not in book.outcomes:
            yield f"outcomes: {name} needs {outcome.source} among the outcomes"


def _find_column_clashes(book: Codebook) -> Iterator[str]:
    """Columns of the extract that cannot be told apart, or that have a name that the judging itself uses."""
    single = [book.person_id, book.design.weight, book.design.stratum, book.design.psu, *(i.column for i in book.items)]
    single += [*(name for name in (book.answered_at, book.design.fpc) if name), *book.replicate_columns()]
    for name in _repeated(single):
        yield (
            f"column {name}: one column cannot be two of id, date, weight, replicate weights, stratum, PSU, fpc, "
            "items: deliver a copy"
        )
    columns = [name for name in book.column_types() if name != book.person_id]
    for name in _repeated(name.lower() for name in columns):
        yield f"column {name}: stands there twice, capitals apart"
    for name in columns:
        if name.lower() in JUDGING or name.lower().endswith("__raw") or name.lower().startswith(("ok__", "_")):
            yield f"column {name}: this name is used while rows are judged: rename it in extract and codebook"
    kinds = book.column_types()
    parts: tuple[Covariate | Cohort, ...] = (*book.covariates, *book.cohorts)
    for part in parts:
        needs_number = part.is_number if isinstance(part, Covariate) else part.breaks is not None
        if needs_number and kinds[part.column] != "number":
            yield f"{part.key}: column {part.column} is read as text for another part, and as a number for this one"


def _find_band_gap(book: Codebook, scale: Scale) -> Iterator[str]:
    chosen = [book.item(key) for key in scale.items]
    low = sum(item.levels[0] for item in chosen) * scale.multiply
    high = sum(item.levels[-1] for item in chosen) * scale.multiply
    starts = list(scale.bands.values())
    if starts and (starts[0] != low or starts[-1] > high):
        yield f"scales: {scale.key}: bands must start at {low}, the lowest total, and not pass {high}"


class _NoRepeats(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error and not a silent replacement."""


def _build_mapping(loader: _NoRepeats, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    keys = [loader.construct_object(key) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
    return {key: loader.construct_object(value, deep=True) for key, (_, value) in zip(keys, node.value, strict=True)}


_NoRepeats.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _build_mapping)


def find_codebook(name_or_file: str) -> Path:
    """The file of a shipped codebook's name, or the file itself."""
    shipped = SHIPPED / f"{name_or_file}.yaml"
    path = shipped if shipped.is_file() else Path(name_or_file)
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.yaml")))
        raise ContractBroken(f"there is no codebook {name_or_file}: give a file, or one of {names}")
    return path


def read_codebook(name_or_file: str) -> tuple[Codebook, str]:
    """Reads and checks a codebook; returns it with the sha256 of its file.

    Raises ContractBroken, which names the file, each wrong key and why it is wrong.
    """
    path = find_codebook(name_or_file)
    content = path.read_bytes()
    try:
        raw = yaml.load(content.decode("utf-8"), Loader=_NoRepeats)
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise ContractBroken(f"codebook {path.name} is not readable YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ContractBroken(f"codebook {path.name}: expected keys and values at the top")
    try:
        book = Codebook.model_validate(raw)
    except ValidationError as error:
        lines = [f"  {_name_place(raw, e['loc'])}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()]
        raise ContractBroken("\n".join([f"codebook {path.name} is not valid:", *lines])) from None
    return book, hashlib.sha256(content).hexdigest()


def _name_place(raw: Any, location: tuple[int | str, ...]) -> str:
    """`items[3] (dpq040).levels` says more than `items.3.levels`."""
    words: list[str] = []
    for step in location:
        try:
            raw = raw[step]
        except (KeyError, IndexError, TypeError):
            raw = None
        if isinstance(step, int) and words:
            label = raw.get("key") or raw.get("name") if isinstance(raw, dict) else None
            words[-1] += f"[{step}]" + (f" ({label})" if label else "")
        else:
            words.append(str(step))
    return ".".join(words) or "codebook"
