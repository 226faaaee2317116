"""The model card: what a model was made of, how far to trust it, what it must not be used for; all of it measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expectations.codebook import Codebook
from jobs.card_covariates import show_covariates
from jobs.card_gate import show_gate
from jobs.card_items import show_correlations, show_curves, show_items
from jobs.card_parts import Measurements
from jobs.card_quality import (
    show_calibration,
    show_data,
    show_glance,
    show_likelihood,
    show_limits,
    show_method,
    show_reliability,
)
from jobs.lake import write_atomically
from jobs.pages import render_page
from model.calibration import calibrate
from model.describe import correlate_traits, describe_items, trace_curves
from model.group_costs import cost_groups
from model.inputs import read_held_out_labels, read_sample, survey_inputs
from model.registry import Model
from model.reliability import count_people, measure_reliability, summarise_data
from model.threads import fix_threads

MOST_PEOPLE = 20_000  # more do not change two decimals
SECTIONS = (
    show_glance,
    show_limits,
    show_data,
    show_likelihood,
    show_reliability,
    show_calibration,
    show_gate,
    show_items,
    show_curves,
    show_correlations,
    show_covariates,
    show_method,
)


def write_card(
    folder: Path, model: Model, book: Codebook, features_paths: Sequence[Path], gate: Mapping[str, Any]
) -> None:
    """Writes card.md and card.html, each replaced in one step. The same model and features give the same bytes.

    `features_paths` are those that the model was trained on, `gate` holds the reasons against it and the measures
    behind them, or nothing where it was not judged. Raises ModelError for features that do not fit.
    """
    measured = measure_model(model, book, features_paths, gate)
    sections = [section for show in SECTIONS if (section := show(measured)) is not None]
    for name in ("card.md", "card.html"):
        page = render_page(f"{name}.j2", book=book, model_version=model.model_version, sections=sections)
        if name.endswith(".md"):
            # Quotation marks cannot start a tag: Markdown is read by the naked eye as well.
            page = page.replace("&#39;", "'").replace("&#34;", '"')
        write_atomically(folder / name, page)


def measure_model(
    model: Model, book: Codebook, features_paths: Sequence[Path], gate: Mapping[str, Any]
) -> Measurements:
    paths, network, spec = sorted(features_paths), model.network, model.spec
    weight_column = model.report["settings"]["weight_column"]
    with fix_threads(1):
        people = read_sample(paths, spec, weight_column, MOST_PEOPLE)
        inputs = survey_inputs(paths, spec, weight_column)
        labels = read_held_out_labels(paths, [cohort.key for cohort in book.cohorts])
        return Measurements(
            book=book,
            spec=spec,
            version=model.model_version,
            report=model.report,
            gate=gate,
            residuals=network.residuals,
            data=summarise_data(people, count_people(paths), spec),
            costs=cost_groups(network, inputs, labels),
            reliabilities=measure_reliability(network, people),
            calibrations=calibrate(network, inputs.held_out >= 0),
            items=describe_items(network),
            curves=[trace_curves(network, trait) for trait in range(len(spec.traits))],
            correlations=correlate_traits(network),
        )
