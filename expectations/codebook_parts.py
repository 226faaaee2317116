"""The parts of a codebook as frozen models: each judges itself; what parts say of others the codebook judges."""

import math
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from expectations.replication import Method, Replication, choose_scales, spread_run

MOST_DELTA = 1e-5  # of all private trainings of a lake together

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

    `replicates`, where there are any, give the variance of all figures: beside them stratum and PSU may be left out.
    `fpc` is a column with the population's PSUs of the stratum, or the share of them that was sampled (up to 1).
    """

    weight: Column
    stratum: Column | None = None
    psu: Column | None = None
    fpc: Column | None = None
    replicates: Replicates | None = None
    nest: bool = False
    lonely_psu: Literal["fail", "adjust", "certainty", "remove", "average"] = "fail"

    @model_validator(mode="after")
    def check_psus(self) -> Self:
        if (self.stratum is None) != (self.psu is None):
            raise ValueError("`stratum` and `psu` are needed together")
        if self.stratum is None and not self.replicates:
            raise ValueError("without `replicates` the design needs `stratum` and `psu`")
        if self.stratum is None and (self.nest or self.fpc):
            raise ValueError("`nest` and `fpc` need `stratum` and `psu`")
        return self

    @property
    def psus_have_home(self) -> bool:
        """Whether a PSU's label tells its stratum."""
        return self.stratum is not None and not self.nest


class Item(Part):
    """One question: the levels of its answers in score order, and the codes that mean no answer.

    `risk`: it asks about harming oneself; an answer above the lowest, or none, puts help lines first on a page about
    the person.
    """

    key: Key
    column: Column
    levels: tuple[int, ...] = Field(min_length=2)
    missing: tuple[int, ...] = ()
    reversed: bool = False
    risk: bool = False
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


class DifferentialPrivacy(Part):
    """Differentially private releases: what each one costs, and what all of a lake may cost together.

    `weights` are cut at a number that is chosen without looking at them, or are `public`: then everybody knows the
    largest. `design_effect` is assumed, from earlier surveys: the realised one would cost privacy too.
    """

    epsilon: float = Field(gt=0, allow_inf_nan=False)
    budget: float = Field(gt=0, allow_inf_nan=False)
    weights: Literal["public"] | Annotated[float, Field(gt=0, allow_inf_nan=False)]
    design_effect: float = Field(ge=1, allow_inf_nan=False)

    @model_validator(mode="after")
    def check_budget(self) -> Self:
        if self.epsilon > self.budget:
            raise ValueError("`epsilon`, of each release, is above `budget`, of all of them: nothing could be released")
        return self


class Disclosure(Part):
    """Disclosure control: the rule set, whether a person must sign a release off before it is published, and when.

    Without a calendar every night is released. With `dp` releases are made of noisy sums, and the rule set of
    suppression and rounding is not used.
    """

    profile: Literal["opensafely", "midpoint6", "cms", "nhs_mhsds", "acro"] = "opensafely"
    review: bool = False
    calendar: Calendar | None = None
    dp: DifferentialPrivacy | None = None


class PrivateTraining(Part):
    """DP-SGD: what a training costs, the norm at which a person's gradient is cut, and a weight that counts as 1.

    None of them may be chosen by looking at the people: `weight` is about what the design expects of the mean one.
    """

    epsilon: float = Field(gt=0, allow_inf_nan=False)
    delta: float = Field(gt=0, le=MOST_DELTA)
    clip: float = Field(gt=0, allow_inf_nan=False)
    weight: float = Field(gt=0, allow_inf_nan=False)


class Training(Part):
    dp: PrivateTraining | None = None
