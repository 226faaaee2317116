"""The model card's sections on trust: use and limits, data, likelihood, reliability, calibration."""

import math
from itertools import groupby

from markupsafe import Markup

from jobs.card_charts import draw_ranks
from jobs.card_parts import (
    MINUS,
    WITHHELD,
    Measurements,
    Picture,
    Pictures,
    Section,
    Table,
    Words,
    count,
    interval,
    name_band,
    number,
    percent,
    say,
)
from jobs.report_charts import Mark, Span, draw_forest
from model.calibration import Band, Calibration
from model.group_costs import FEWEST_PEOPLE, GroupCost
from model.validation import HIDDEN_SHARE

NOMINAL = 0.90
NORMAL_95 = 1.96
FAR_OFF = 0.02  # of a coverage from the nominal one: worth a sentence


def show_glance(m: Measurements) -> Section:
    whole = m.costs[0]
    rows = []
    for trait, reliability, calibration in zip(m.spec.traits, m.reliabilities, m.calibrations, strict=True):
        top, bottom = calibration.bands[-1], calibration.bands[0]
        rows.append([
            m.label_trait(trait.key), str(len(trait.items)), number(reliability.marginal), number(reliability.alpha),
            number(reliability.omega), percent(calibration.whole.coverage), percent(bottom.coverage),
            percent(top.coverage),
        ])  # fmt: skip
    head = ["Trait", "Items", "Marginal reliability", "Alpha", "Omega", "Coverage: everybody", "lowest level",
            "highest level"]  # fmt: skip
    chance = ""
    if whole.model is not None and whole.margins is not None:
        chance = (
            "To what people did answer, where it was not shown, it gives a probability of "
            f"{number(math.exp(-whole.model))} in the geometric mean, against {number(math.exp(-whole.margins))} for "
            "guessing by each item's overall answers alone. "
        )
    return Section("glance", "At a glance", [
        say(
            f"A graded response model with {_plural(len(m.spec.traits), 'named trait')} and {len(m.spec.items)} items, "
            f"estimated from the answers of {m.data.people:,} people. For each person it gives the posterior mean and "
            "standard deviation of every trait, whatever they answered or skipped. Higher means more distress; the "
            "unit is the standard deviation of the reference population, whose mean is 0."
        ),
        say(f"{chance}It is a screening aid and no diagnosis."),
        Table("Reliability on people with complete answers, and coverage of 90 % intervals on simulated people whose "
              "true trait is known: lowest level below −1 sd, highest above 2 sd.", head, rows),
    ])  # fmt: skip


def show_limits(m: Measurements) -> Section:
    lines = [
        "A profile is a screening aid and no diagnosis. It has not been compared with clinical interviews here, and "
        "no decision about one person may rest on it.",
        "It is shrunken towards the population mean, the more the less a person answered. Averages of profiles "
        "therefore understate differences between groups; group figures are made from the answers instead.",
        *[line for calibration in m.calibrations if (line := word_tails(m, calibration))],
        f"It holds for the population that the survey stands for ({m.book.title}), asked in the same way. Other "
        "populations, languages or modes need a model of their own.",
        "Items need not work alike in all cohorts, and the model takes them to: no profile is made from a person's "
        "cohort. The section on fairness names items that differ, and how far predictions are off in each cohort.",
        "Skipped answers are taken as missing at random given the answers that are there. Who skips an item because "
        "of the trait itself gets a profile that is too near to the others'.",
    ]
    return Section("limits", "Limits of use", [Words(lines)])


def word_tails(m: Measurements, calibration: Calibration) -> str:
    """How far intervals at both ends of a trait fall short, in a sentence; empty where they do not."""
    parts = [
        f"{percent(band.coverage)} of those {name_band(band)} sd ({_points(band.coverage)}; their posterior means lie "
        f"{number(abs(band.bias))} sd too {'low' if band.bias < 0 else 'high'} on average)"
        for band in (calibration.bands[0], calibration.bands[-1])
        if band.coverage is not None and band.bias is not None and abs(band.coverage - NOMINAL) > FAR_OFF
    ]
    if not parts:
        return ""
    start = (
        f"Intervals of 90 % for {m.label_trait(calibration.trait)} cover {percent(calibration.whole.coverage)} of all"
    )
    return f"{start} simulated people, but {' and '.join(parts)}."


def _points(coverage: float) -> str:
    gap = 100 * (coverage - NOMINAL)
    return f"{abs(gap):.1f} points too {'few' if gap < 0 else 'many'}"


def show_data(m: Measurements) -> Section:
    rows, data = m.report.get("rows", {}), m.data
    column = m.report["settings"]["weight_column"]
    weights = (
        f"Each person's likelihood counts with the survey weight (column {column}), scaled to a mean of 1. The "
        f"weights leave the worth of {data.effective:,.0f} equally weighted people (Kish 1965)."
        if column else "People are not weighted."
    )  # fmt: skip
    link = m.report.get("link")
    series = f" (series {m.gate['series']})" if m.gate.get("series") else ""
    unit = f"This model's own population is the reference{series}: its unit and its norms start here."
    if lost := m.gate.get("link_lost"):
        unit += f" It could not be linked to the earlier one, and no figures of both compare: {'; '.join(lost)}."
    if link:
        errors = ", ".join(f"{m.label_trait(key)} {number(error, 3)} sd" for key, error in link["errors"].items())
        unit = (
            f"The unit is that of an earlier reference population{series}, linked by anchored item parameters. "
            f"Linking error: {errors}."
        )
    most = sorted(data.unanswered.items(), key=lambda pair: -pair[1])[:3]
    return Section("data", "Data and weights", [
        say(
            f"{m.book.title} (codebook {m.spec.codebook}, version {m.spec.codebook_version}). {data.people:,} people; "
            f"{rows.get('training', 0):,} of them served for estimation and {rows.get('validation', 0):,}, a fold "
            "drawn at random, were held out. "
            + (f"Figures of this card on real people rest on {data.sampled:,} of them, drawn at random. "
               if data.sampled < data.people else "")
            + weights
        ),
        say(
            f"{percent(data.complete)} (weighted) answered all items. Most often unanswered: "
            + "; ".join(f"{m.label_item(key)} ({percent(share)})" for key, share in most) + "."
        ),
        say(unit),
    ])  # fmt: skip


def show_likelihood(m: Measurements) -> Section:
    whole = m.costs[0]
    blocks: list[Words | Table | Pictures] = [
        say(
            f"{percent(HIDDEN_SHARE, 0)} of the answers of held-out people were hidden, and the model gave each "
            "possible answer a probability from the answers that were left. The figure is the mean negative "
            "log-likelihood per hidden answer in nats, weighted: lower is better, and e to the power of minus it is "
            "the probability given, in the geometric mean, to what the person did answer. The held-out people did not "
            "enter the estimation, but they told it when to stop, which flatters the model a little."
        ),
        Table("Cost of a hidden answer, everybody.", ["Model", "Nats per answer", "Probability of the true answer"],
              _list_models(m)),
    ]  # fmt: skip
    if m.costs[1:] and whole.gain is not None:
        blocks += [
            say(
                "By cohort: how much less an answer costs than under the items' margins, with design-based 95 % "
                "intervals (strata, PSUs and weights). Groups with "
                f"fewer than {FEWEST_PEOPLE} held-out people are withheld. "
                "Groups whose answers vary little have little to gain."
            ),
            Pictures([_draw_cohort(m, key) for key in _list_cohorts(m)]),
            Table("Cost of a hidden answer by cohort, in nats.",
                  ["Group", "Held-out people", "This model", "Items' margins", "Gain", "95 % interval of gain"],
                  [_list_group(m, whole),
                   *(_list_group(m, cost) for key in _list_cohorts(m) for cost in _order_costs(m, key))]),
        ]  # fmt: skip
    return Section("likelihood", "Likelihood against the baselines", blocks)


def _list_models(m: Measurements) -> list[list[str]]:
    whole = m.costs[0]
    alone = None if whole.model is None else m.scales_cost
    models = [
        ("Items' margins: each item's overall answers, the same for everybody", whole.margins),
        ("A graded response model of each scale by itself, as is usually fitted", alone),
    ]
    tried = m.report.get("residuals", {}).get("nats_per_answer", {})
    if m.residuals and "0" in tried and not m.report.get("link"):  # of the same people, that is
        models.append(("Named traits alone, no residual latents (as tried during estimation)", tried["0"]))
    models.append((f"This model: named traits and {_plural(m.residuals, 'residual latent')}", whole.model))
    return [[name, number(cost, 3), WITHHELD if cost is None else number(math.exp(-cost))]
            for name, cost in models]  # fmt: skip


def _list_cohorts(m: Measurements) -> list[str]:
    known = [cohort.key for cohort in m.book.cohorts]
    return [key for key, _ in groupby(sorted((c.column for c in m.costs[1:]), key=known.index))]


def _label_group(m: Measurements, cost: GroupCost) -> str:
    found = next((cohort for cohort in m.book.cohorts if cohort.key == cost.column), None)
    return found.read_group(cost.group) if found else "Everybody"


def _list_group(m: Measurements, cost: GroupCost) -> list[str]:
    cohort = next((c.label or c.key for c in m.book.cohorts if c.key == cost.column), "")
    label = _label_group(m, cost)
    figures = [number(figure, 3) for figure in (cost.model, cost.margins, cost.gain)]
    return [f"{cohort}: {label}" if cohort else label, count(cost.people), *figures, interval(cost.gain_low,
            cost.gain_high, 3)]  # fmt: skip


def _order_costs(m: Measurements, key: str) -> list[GroupCost]:
    """A cohort's groups as the codebook orders them."""
    groups = next(cohort.groups for cohort in m.book.cohorts if cohort.key == key)
    return sorted((cost for cost in m.costs if cost.column == key), key=lambda cost: groups.index(cost.group))


def _draw_cohort(m: Measurements, key: str) -> Picture:
    cohort = next(cohort for cohort in m.book.cohorts if cohort.key == key)
    marks = [_mark_gain(_label_group(m, cost), cost) for cost in _order_costs(m, key)]
    reach = [_bounds(cost) for cost in m.costs if cost.gain is not None]
    low, high = min(0.0, *(a for a, _, _ in reach)), max(b for _, _, b in reach)
    span = Span(low, high, ".2f", _bounds(m.costs[0]))
    alt = "; ".join(f"{mark.label} {mark.text}" for mark in marks)
    return Picture(cohort.label or key, draw_forest(marks, span, f"gain-{key}").svg, f"Gain in nats: {alt}.")


def _bounds(cost: GroupCost) -> tuple[float, float, float]:
    gain = cost.gain or 0.0
    return cost.gain_low or gain, gain, cost.gain_high or gain


def _mark_gain(label: str, cost: GroupCost) -> Mark:
    if cost.gain is None:
        return Mark(label, None, None, None, WITHHELD)
    return Mark(label, cost.gain_low, cost.gain, cost.gain_high, number(cost.gain, 3))


def show_reliability(m: Measurements) -> Section:
    rows = [
        [m.label_trait(r.trait), count(r.people), number(r.marginal), number(c.reliability), number(r.alpha),
         number(r.omega)]
        for r, c in zip(m.reliabilities, m.calibrations, strict=True)
    ]  # fmt: skip
    head = ["Trait", "People", "Marginal reliability", "The same, simulated", "Alpha", "Omega"]
    return Section("reliability", "Reliability", [
        say(
            "Marginal reliability is that of the profile: the variance of posterior means over that variance plus the "
            "mean posterior variance. Simulated is the squared correlation of posterior means with true traits, on "
            "people who skip as real people do; were the model true, both would agree. Cronbach's alpha and "
            "McDonald's omega are those of the sum score on the same people, weighted. Omega comes from one factor "
            "by minimum residuals on Pearson correlations, its loadings in the items' own units."
        ),
        Table("Reliability on people who answered the whole scale.", head, rows),
        say(
            "The two kinds answer different questions. Where many people choose the lowest answer throughout, their "
            "sum scores are the same and count as precise, while the model says that it cannot tell how far below "
            "the items' reach they stand: marginal reliability is then the lower one. Where traits inform each "
            "other, it can be the higher one."
        ),
    ])  # fmt: skip


def show_calibration(m: Measurements) -> Section:
    blocks: list[Words | Table | Pictures] = [
        say(
            "People were simulated from the model, with the items that real held-out people answered and skipped, and "
            "then scored like anybody. Their true traits are known, so this says how honest intervals and means are "
            "if the model is true; it does not show whether it is. A posterior mean is drawn towards the middle, so "
            "intervals that are right on the whole cover people in the tails less often. The tables say how much."
        )
    ]
    for calibration in m.calibrations:
        label = m.label_trait(calibration.trait)
        bands = [calibration.whole, *calibration.bands]
        blocks += [
            Pictures([
                Picture(f"{label}: coverage of 90 % intervals by true level, in sd",
                        Markup(_draw_coverage(calibration)),
                        "; ".join(f"{name_band(band)} {percent(band.coverage)}" for band in bands) + "."),
                Picture(f"{label}: where true values lie in their posteriors",
                        Markup(draw_ranks(calibration.ranks, f"ranks-{calibration.trait}")),
                        f"Counts in {len(calibration.ranks)} equal parts: {', '.join(map(str, calibration.ranks))}."),
            ]),
            say(
                "In the second picture, bars of one height mean posteriors that are neither too wide (a hump) nor too "
                "narrow (high ends); 99 % of bars would lie in the grey strip by chance alone. Largest deviation of "
                f"the distribution function from the uniform one: {number(calibration.deviation, 3)}."
            ),
            Table(f"{label}: simulated people by true level.",
                  ["True level, sd", "People simulated", "Coverage of 90 % intervals", "Points from 90",
                   "Bias of the mean, sd", "Root mean square error, sd"],
                  [_list_band(band) for band in bands]),
        ]  # fmt: skip
    return Section("calibration", "Calibration by level of the trait", blocks)


def _draw_coverage(calibration: Calibration) -> Markup:
    marks = [_mark_coverage(band) for band in calibration.bands]
    low = min([0.75, *(mark.low for mark in marks if mark.low is not None)])
    # Whole tenths, so that the axis starts and ends on a tick.
    span = Span(int(10 * low) / 10, 1.0, ".0%", (NOMINAL, NOMINAL, NOMINAL))
    return draw_forest(marks, span, f"coverage-{calibration.trait}").svg


def _mark_coverage(band: Band) -> Mark:
    if band.coverage is None or band.coverage_se is None:
        return Mark(name_band(band), None, None, None, "too few")
    half = NORMAL_95 * band.coverage_se
    return Mark(name_band(band), band.coverage - half, band.coverage, min(1.0, band.coverage + half),
                percent(band.coverage))  # fmt: skip


def _list_band(band: Band) -> list[str]:
    if band.coverage is None:
        return [name_band(band), f"{band.people:,}", "too few", "", "", ""]
    gap = number(100 * (band.coverage - NOMINAL), 1)
    gap = gap if gap.startswith(MINUS) else f"+{gap}"
    return [name_band(band), f"{band.people:,}", percent(band.coverage), gap, number(band.bias), number(band.error)]


def show_method(m: Measurements) -> Section:
    return Section("method", "Method and sources", [
        Words([
            "Items: graded response, P(Y ≥ k | trait) = logistic(a · trait − b) with rising thresholds (Samejima "
            "1969). Each item loads on one named trait; a trait of two items has equal discriminations.",
            f"What the scales leave: {_plural(m.residuals, 'residual latent')}, which shift an item's location and "
            "spread and never the order of its categories.",
            "Population: the traits' density is a mixture of normals, free to be skewed (compare Woods & Lin 2009), "
            "with mean 0 and variance 1 in the reference population.",
            "Estimation: weighted marginal likelihood by an importance-weighted bound (Burda, Grosse & Salakhutdinov "
            "2016). A neural network maps answers to posterior means and covariances; it is trained last on people "
            "simulated from the finished model, so that those are the posterior's own.",
            "Loadings: Takane & de Leeuw 1987. Information: Samejima 1969. Marginal reliability: Green and others "
            "1984. Alpha: Cronbach 1951. Omega: McDonald 1999. Simulation-based calibration: Talts and others 2018.",
        ]),
        Table("Provenance.", ["What", "Value"], [
            ["Model", m.version],
            ["Codebook", f"{m.spec.codebook}, version {m.spec.codebook_version}"],
            *[["Features, sha256", digest] for digest in m.report.get("files", [])[:5]],
            ["torch", str(m.report.get("torch", "not known"))],
        ], text=True),
    ])  # fmt: skip


def _plural(number_of: int, noun: str) -> str:
    return f"{number_of or 'no'} {noun}{'' if number_of == 1 else 's'}"
