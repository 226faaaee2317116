"""The model card: what a model was made of, how far to trust it, what it must not be used for; all of it measured."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expectations.codebook import Codebook
from jobs.card_covariates import show_covariates
from jobs.card_fairness import show_fairness
from jobs.card_feedback import show_feedback
from jobs.card_gate import show_gate
from jobs.card_items import show_correlations, show_curves, show_items
from jobs.card_membership import show_membership, show_privacy
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
from jobs.verification import verify_cut
from model.calibration import calibrate
from model.describe import MATCHING, correlate_traits, describe_items, tabulate_items, trace_curves
from model.design import Design
from model.differential import ItemFinding, examine_items
from model.group_costs import cost_by_scales, cost_groups
from model.inputs import People, read_held_out_labels, read_labels, read_sample, survey_inputs
from model.membership import Attack
from model.network import ProfileNetwork
from model.registry import Model
from model.reliability import count_people, measure_reliability, summarise_data
from model.threads import fix_threads
from model.validation import design_cells

MOST_PEOPLE = 20_000  # more do not change two decimals
MOST_EXAMINED = 10_000  # for items that differ between cohorts: enough to be sure of a difference that matters
DESIGN = ("stratum", "psu")
MEMBERSHIP = "membership.json"  # beside the card, where jobs/membership.py has measured it
SECTIONS = (
    show_glance,
    show_limits,
    show_data,
    show_likelihood,
    show_fairness,
    show_reliability,
    show_calibration,
    show_gate,
    show_privacy,
    show_membership,
    show_items,
    show_curves,
    show_correlations,
    show_covariates,
    show_feedback,
    show_method,
)


def write_card(
    folder: Path, model: Model, book: Codebook, features_paths: Sequence[Path], gate: Mapping[str, Any]
) -> None:
    """Writes card.md, card.html and fairness.json, each replaced in one step; the same model and features give the same
    bytes.

    `features_paths` are those that the model was trained on, `gate` holds the reasons against it and the measures
    behind them, or nothing where it was not judged. What MEMBERSHIP in the folder says is shown. Raises ModelError for
    features that do not fit.
    """
    measured = measure_model(model, book, features_paths, gate, read_membership(folder))
    sections = [section for show in SECTIONS if (section := show(measured)) is not None]
    for name in ("card.md", "card.html"):
        page = render_page(f"{name}.j2", book=book, model_version=model.model_version, sections=sections)
        if name.endswith(".md"):
            # Quotation marks cannot start a tag: Markdown is read by the naked eye as well.
            page = page.replace("&#39;", "'").replace("&#34;", '"')
        write_atomically(folder / name, page)
    write_atomically(folder / "fairness.json", tell_fairness(measured))


def tell_fairness(measured: Measurements) -> str:
    """All figures of the section on fairness, `theta` being the levels of the trait at which scores are `expected`."""
    findings = [{**asdict(finding), "verdict": finding.verdict} for finding in measured.findings]
    cohorts = measured.gate["measures"].get("fairness", []) if measured.gate else []
    told = {"cohorts": cohorts, "theta": np.linspace(*MATCHING).tolist(), "items": findings}
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


def read_membership(folder: Path) -> Attack | None:
    """What was measured of the folder's model; None where nobody has asked."""
    file = folder / MEMBERSHIP
    return Attack(**json.loads(file.read_text())) if file.exists() else None


def measure_model(
    model: Model, book: Codebook, features_paths: Sequence[Path], gate: Mapping[str, Any], membership: Attack | None
) -> Measurements:
    paths, network, spec = sorted(features_paths), model.network, model.spec
    weight_column = model.report["settings"]["weight_column"]
    confirmed = book.feedback.confirmed if book.feedback else None
    with fix_threads(1):
        people = read_sample(paths, spec, weight_column, MOST_PEOPLE)
        inputs = survey_inputs(paths, spec, weight_column)
        named = [*DESIGN, *(cohort.key for cohort in book.cohorts)]
        held_out = read_held_out_labels(paths, named)
        design = design_cells(inputs, held_out.pop("stratum"), held_out.pop("psu"))
        return Measurements(
            book=book,
            spec=spec,
            version=model.model_version,
            report=model.report,
            gate=gate,
            membership=membership,
            residuals=network.residuals,
            data=summarise_data(people, count_people(paths), spec),
            costs=cost_groups(network, inputs, held_out, design),
            scales_cost=cost_by_scales(inputs, people, spec),
            reliabilities=measure_reliability(network, people),
            calibrations=calibrate(network, inputs.held_out >= 0),
            items=describe_items(network),
            curves=[trace_curves(network, trait) for trait in range(len(spec.traits))],
            correlations=correlate_traits(network),
            findings=find_differences(network, people, read_labels(paths, named, MOST_EXAMINED)),
            verification=verify_cut(book, confirmed, paths) if confirmed else None,
        )


def find_differences(network: ProfileNetwork, people: People, labels: dict[str, list[str | None]]) -> list[ItemFinding]:
    """Every item by every cohort: see model/differential.py. `labels` are of the first people, their design's too."""
    strata, psus = (labels.pop(name) for name in DESIGN)
    codes, weights = people.codes[: len(strata)], people.weights[: len(strata)]
    categories = network.categories(torch.from_numpy(codes)).numpy()
    traits = []
    for number, trait in enumerate(network.spec.traits):
        places = [network.spec.columns.index(key) for key in trait.items]
        traits.append((tabulate_items(network, number), categories[:, places]))
    return examine_items(traits, labels, Design.of(weights, strata, psus))
