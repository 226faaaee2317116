"""Train a profile network on feature files: the first of a series from the start, later ones from the one in force."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.amortise import settle_encoder
from model.covariate_heads import CovariateHead
from model.covariates import fit_covariates, fit_rare, read_covariates
from model.design import Design
from model.drift import share_answers, share_traits
from model.fitting import Fitted, Task, TrainingSettings, fit
from model.gate import compare_costs
from model.heap import keep_freed_memory
from model.inputs import People, hash_file, read_sample, survey_inputs
from model.likelihood import smooth_margins
from model.linking import Behaviour, check_spread, free_items, hide_items, link_population, measure_items
from model.network import ProfileNetwork
from model.norms import Norms, make_norms
from model.spec import FeatureSpec
from model.threads import fix_threads
from model.unit import PEOPLE, fix_unit, place_population
from model.validation import HiddenCells, cost_people, hide_cells, validate

RESIDUALS = (0, 4)
RESIDUALS_OF_MANY_ITEMS = (0, 4, 8, 16, 24)  # until one brings nothing
MANY_ITEMS = 40
FEWEST_FOR_RESIDUALS = 1_000  # people: fewer do not show what the scales leave
LEAST_GAIN = 0.001  # nats per hidden answer that more residuals must bring
SURE = 2.0  # standard errors that the gain must exceed

Fit = Callable[[ProfileNetwork, Task, Path, bool], Fitted[ProfileNetwork]]  # as `fitting.fit`


@dataclass(frozen=True)
class TrainingResult:
    """`reference` is the first network of the series, whose items later ones are anchored to."""

    network: ProfileNetwork
    reference: ProfileNetwork
    norms: Norms
    report: dict[str, Any]


def train(
    paths: Sequence[Path],
    spec: FeatureSpec,
    settings: TrainingSettings,
    folder: Path,
    *,
    champion: TrainingResult | None = None,
    progress: bool = True,
    fit: Fit = fit,
) -> TrainingResult:
    """Train on the files' rows outside fold 0, validate on fold 0; `folder` keeps the checkpoints.

    With a `champion` the training goes on from it, in its unit: see model/linking.py. Percentiles stay those of the
    reference population. `fit` takes the steps, in this process or in several that share them.

    A training that was killed goes on from its checkpoint and ends with the same bits. Raises ModelError for features
    that do not fit, too few people, and a loss that is not finite (naming epoch and batch; the last good checkpoint
    stays); LinkError where the items no longer hold the champion's unit.
    """
    keep_freed_memory()
    paths = sorted(paths)
    if champion:  # its items keep their order, whatever order tonight's codebook lists them in
        spec = replace(champion.network.spec, codebook_version=spec.codebook_version, covariates=spec.covariates)
    with fix_threads(settings.threads):
        inputs = survey_inputs(paths, spec, settings.weight_column)
        # By content alone: names have a night's token, and the same answers give the same model.
        files = [hash_file(path) for path in paths]
        sample = read_sample(paths, spec, settings.weight_column, PEOPLE)
        task = Task(paths, spec, settings, inputs, files)
        if champion:
            network, told = _go_on(champion, task, folder, sample, progress, fit)
        else:
            network, told = _start(task, folder, sample, progress, fit)
        reference = champion.reference if champion else network.without_covariates()
        told["covariates"] = teach_covariates(network, spec, paths, sample, settings.weight_column)
        settle_encoder(network, inputs.held_out >= 0, settings.seed, settings.settle_steps, settings.device)
        validation = validate(network, inputs)
        norms = make_norms(network, paths, settings.weight_column)
        profiles = share_traits(network, sample)
    if champion:
        norms = replace(champion.norms, fits=norms.fits)
    report = {
        "settings": asdict(settings),
        "codebook": spec.codebook,
        "codebook_version": spec.codebook_version,
        "rows": {"training": inputs.rows, "validation": inputs.held_out_rows},
        "files": files,
        **told,
        "validation": asdict(validation),
        "answers": share_answers(paths, spec, settings.weight_column),
        "profiles": profiles,
        "torch": torch.__version__,
    }
    return TrainingResult(network, reference, norms, report)


def _start(task: Task, folder: Path, sample: People, progress: bool, fit: Fit) -> tuple[ProfileNetwork, dict[str, Any]]:
    """The first network of a series: its population is the reference."""
    settings, cells = task.settings, hide_cells(task.inputs)
    candidates: list[Fitted[ProfileNetwork]] = []
    for count in count_residuals(task.spec, settings, task.inputs.rows):
        tried = replace(task, settings=replace(settings, residuals=count))
        candidates.append(fit(make_network(tried), tried, folder / str(count), progress))
        if len(candidates) > 2 and choose(candidates, cells) is not candidates[-1]:
            break
    chosen = choose(candidates, cells)
    network = chosen.network
    categories, weights = tell_sample(network, sample)
    place_population(network, categories, weights)
    fix_unit(network)
    told = {
        "residuals": {
            "chosen": network.residuals,
            "nats_per_answer": {str(fitted.network.residuals): fitted.nats_per_answer for fitted in candidates},
        },
        **_tell_history(chosen),
        "reference": {key: asdict(found) for key, found in measure_items(network, categories, weights).items()},
        "link": None,
    }
    return network, told


def make_network(task: Task) -> ProfileNetwork:
    """A network at its start; `task.settings.residuals` is a number here."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.settings.seed)
        return ProfileNetwork(task.spec, smooth_margins(task.inputs.counts, task.spec), task.settings.residuals or 0)


def _go_on(
    champion: TrainingResult, task: Task, folder: Path, sample: People, progress: bool, fit: Fit
) -> tuple[ProfileNetwork, dict[str, Any]]:
    """The champion's encoder and population on the reference's items, brought to tonight's people.

    Items that have drifted are learned anew, and those without a trait, which anchor nothing. Where none is, there is
    nothing to learn but the population, whose place is found directly: the encoder follows when it is settled.
    """
    network, old = champion.reference.copy(), champion.report
    network.encoder.load_state_dict(champion.network.encoder.state_dict())
    network.prior.load_state_dict(champion.network.prior.state_dict())
    categories, weights = tell_sample(network, sample)
    reference = {key: Behaviour(**found) for key, found in old["reference"].items()}
    link = link_population(network, categories, weights, reference)
    drifted = [key for keys in link.drifted.values() for key in keys]
    # An encoder of other people is too sure of these, and would place them too close together.
    settings = task.settings
    settle_encoder(network, task.inputs.held_out >= 0, settings.seed, settings.settle_steps // 5, settings.device)
    place_population(network, hide_items(network.spec, categories, drifted), weights)
    told = {key: old[key] for key in ("residuals", "reference", "history", "best_epoch")}
    learning = [*drifted, *(item.key for item in network.spec.items if item.trait is None)]
    if learning:
        free_items(network, learning)
        tuned = fit(network, replace(task, settings=replace(settings, residuals=network.residuals)), folder, progress)
        network = tuned.network
        place_population(network, categories, weights)
        told |= _tell_history(tuned)
    check_spread(network)
    return network, {**told, "link": asdict(link)}


def _tell_history(fitted: Fitted[ProfileNetwork]) -> dict[str, Any]:
    return {"history": [asdict(epoch) for epoch in fitted.history], "best_epoch": fitted.best_epoch}


def teach_covariates(
    network: ProfileNetwork, spec: FeatureSpec, paths: Sequence[Path], sample: People, weight_column: str | None
) -> list[dict[str, Any]]:
    """Tonight's covariates, which need not be those that the champion knew, given the finished traits."""
    network.spec = spec
    network.covariates = nn.ModuleList([CovariateHead(part, network.traits) for part in spec.covariates])
    values = read_covariates(paths, spec, len(sample.codes))
    figures = fit_covariates(network, *tell_sample(network, sample), sample.folds, values)
    return [asdict(found) for found in fit_rare(network, figures, paths, weight_column)]


def tell_sample(network: ProfileNetwork, sample: People) -> tuple[Tensor, Tensor]:
    """Categories (B, J) and weights (B, mean 1) of a sample."""
    return network.categories(torch.from_numpy(sample.codes)), torch.from_numpy(sample.weights / sample.weights.mean())


def count_residuals(spec: FeatureSpec, settings: TrainingSettings, rows: int) -> tuple[int, ...]:
    """The numbers of residual latents that are tried, rising."""
    if settings.residuals is not None:
        return (settings.residuals,)
    if rows < FEWEST_FOR_RESIDUALS:
        return (0,)
    return RESIDUALS_OF_MANY_ITEMS if len(spec.items) >= MANY_ITEMS else RESIDUALS


def choose(candidates: Sequence[Fitted[ProfileNetwork]], cells: HiddenCells) -> Fitted[ProfileNetwork]:
    """More residuals only where they foretell hidden answers better, and by more than chance."""
    best, design = candidates[0], Design.unclustered(cells.weights[: cells.people].double().numpy())
    for candidate in candidates[1:]:
        new, old = (cost_people(fitted.network, cells) for fitted in (candidate, best))
        [compared] = compare_costs(new, old, cells, {}, design)
        if -compared.difference >= max(LEAST_GAIN, SURE * compared.se):
            best = candidate
    return best
