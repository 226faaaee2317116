"""What is wrong with a codebook whose parts are right by themselves: names that point nowhere, or at two things."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from expectations.codebook_parts import Cohort, Covariate, Item, Scale, Trait
from expectations.outcomes import parse_outcome

if TYPE_CHECKING:
    from expectations.codebook import Codebook

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


def _repeated(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def find_problems(book: "Codebook") -> Iterator[str]:
    """Sentences, each with its place in the codebook."""
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
    made += [book.feedback.confirmed.key] if book.feedback and book.feedback.confirmed else []
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
    if book.purpose.needs_consent and book.consent is None:
        yield "consent: missing, and the purpose rests on it: name its column with the codes `agreed` and `refused`"
    yield from _find_strange_feedback(book)
    yield from _find_hidden_risk(book)
    if book.disclosure.dp and book.margins:
        yield "margins: not with `disclosure.dp`: raked weights of everybody hang on each person's answers"
    yield from _find_unpaid_training(book)
    yield from _find_strange_margins(book)
    yield from _find_strange_standard(book)
    asked = {item.column: item.key for item in book.items}
    for cohort in book.cohorts:
        if cohort.column in asked:
            yield (
                f"cohorts: {cohort.key} is made of column {cohort.column}, which is the item {asked[cohort.column]}: "
                "profiles are made from items, and never from a person's cohort"
            )
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


def _find_unpaid_training(book: "Codebook") -> Iterator[str]:
    trained, released = book.training.dp, book.disclosure.dp
    if trained and not released:
        yield (
            "training: `dp` needs `disclosure.dp`: beside releases by suppression it would promise nothing, and the "
            "budget is stated there"
        )
    if trained and released and trained.epsilon + released.epsilon > released.budget:
        yield "training: `dp` and one release cost more than the budget of `disclosure.dp`: nothing could be released"


def _find_strange_feedback(book: "Codebook") -> Iterator[str]:
    if book.feedback is None:
        return
    names = [name.lower() for name in (book.person_id, *JUDGING, *book.feedback.columns)]
    for name in sorted({name.lower() for name in book.feedback.columns} & set(_repeated(names))):
        yield f"feedback: a column cannot be called {name}, capitals apart: rename it"
    if book.purpose.use != "care":
        yield "feedback: nobody is shown an analysis under `statistics`, so nobody can say what it was worth"
    if (confirmed := book.feedback.confirmed) is None:
        return
    scale = next((scale for scale in book.scales if scale.key == confirmed.scale), None)
    if scale is None:
        yield f"feedback: confirmed: unknown scale {confirmed.scale}"
        return
    if scale.cut is None:
        yield f"feedback: confirmed: {scale.key} has no `cut` that a clinician could confirm"
        return
    if unknown := sorted(set(confirmed.map.values()) - set(scale.bands)):
        yield f"feedback: confirmed: {scale.key} has no band {unknown[0]}"
    bound, upwards = int(scale.cut[2:]), scale.cut.startswith(">=")
    step = scale.multiply  # nobody has a total between two steps: a band may start anywhere there
    low, high = (bound, -(-bound // step) * step) if upwards else (bound + 1, bound // step * step + step)
    if not any(low <= start <= high for start in scale.bands.values()):
        yield f"feedback: confirmed: no band of {scale.key} starts at {high}, where its cut parts the totals"
    if confirmed.key in book.column_types():
        yield f"feedback: confirmed: the extract has a column {confirmed.key}, which the features need: rename it there"
    cases = set(book.list_cases(scale))
    if not cases & set(confirmed.map.values()) or not set(confirmed.map.values()) - cases:
        yield f"feedback: confirmed: `map` needs bands on both sides of the cut of {scale.key}"


def _find_hidden_risk(book: "Codebook") -> Iterator[str]:
    """Pages about one person must know which question is about harming oneself: PHQ-9 has one."""
    risky = {item.key for item in book.items if item.risk}
    for scale in book.scales:
        if book.purpose.use == "care" and scale.key == "phq9" and not risky & set(scale.items):
            yield "items: PHQ-9 asks about thoughts of self-harm: that item needs `risk: true` under `care`"


def _find_strange_margins(book: "Codebook") -> Iterator[str]:
    groups = {cohort.key: cohort.groups for cohort in book.cohorts}
    for cohort, counts in (book.margins.counts if book.margins else {}).items():
        if cohort not in groups:
            yield f"margins: unknown cohort {cohort}"
            continue
        for group in counts:
            if group not in groups[cohort]:
                yield f"margins: {cohort} has no group {group}"


def _find_strange_standard(book: "Codebook") -> Iterator[str]:
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


def _find_wrong_outcomes(book: "Codebook") -> Iterator[str]:
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


def _find_column_clashes(book: "Codebook") -> Iterator[str]:
    """Columns of the extract that cannot be told apart, or that have a name that the judging itself uses."""
    single = [book.person_id, book.design.weight, *(i.column for i in book.items), *book.replicate_columns()]
    single += [book.consent.column] if book.consent else []
    single += [name for name in (book.answered_at, book.design.stratum, book.design.psu, book.design.fpc) if name]
    for name in _repeated(single):
        yield (
            f"column {name}: one column cannot be two of id, consent, date, weight, replicate weights, stratum, PSU, "
            "fpc, items: deliver a copy"
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


def _find_band_gap(book: "Codebook", scale: Scale) -> Iterator[str]:
    chosen = [book.item(key) for key in scale.items]
    low = sum(item.levels[0] for item in chosen) * scale.multiply
    high = sum(item.levels[-1] for item in chosen) * scale.multiply
    starts = list(scale.bands.values())
    if starts and (starts[0] != low or starts[-1] > high):
        yield f"scales: {scale.key}: bands must start at {low}, the lowest total, and not pass {high}"
