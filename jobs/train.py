"""Stage 3: the model in force, or a new one where none is, where a retrain is due, or where one is forced."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import structlog
import torch

from expectations.codebook import Codebook
from expectations.codebook_parts import PrivateTraining
from expectations.errors import ContractBroken
from jobs.dp_ledger import affords_training, note_training
from jobs.errors import StageError
from jobs.job import Job
from jobs.lake import Lake, StageRecord
from jobs.model_card import write_card
from jobs.model_spec import build_spec
from jobs.promotions import find_model
from jobs.spread import share_training
from model.arithmetic import choose_arithmetic
from model.covariates import read_covariates, read_known
from model.design import Design
from model.drift import compare_shares, share_answers, share_traits
from model.errors import ModelError, OutdatedModelError
from model.fairness import compare_fairness, describe_groups, find_unfairness, take_measures
from model.fitting import TrainingSettings
from model.gate import (
    compare_costs,
    cover_answers,
    cover_simulated,
    find_losses,
    find_miscalibration,
    place_simulated,
    rank_simulated,
)
from model.inputs import Inputs, read_held_out_labels, read_sample, survey_inputs
from model.linking import LinkError
from model.predicting import foretell_hidden
from model.registry import ARCHITECTURE, FORMAT_VERSION, Model, load_model, promotable, save_model
from model.spec import FeatureSpec, compare_specs
from model.threads import fix_threads
from model.training import train
from model.unit import PEOPLE
from model.validation import cost_people, design_cells, hide_cells

SETTINGS = TrainingSettings()
DRIFT_LIMIT = 0.25  # PSI of an item's answers or of a trait's profiles above which a training is due
NEEDED, DUE, KEPT = "needed", "due", "kept"
TRAINING_SPENT = "the privacy budget has nothing left for a training"


@dataclass(frozen=True)
class Drift:
    """PSI of every item's answers and of every trait's profiles, against those that the model was made on."""

    items: dict[str, float]
    profiles: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        parts = {"items": self.items, "profiles": self.profiles}
        return {
            "limit": DRIFT_LIMIT,
            **{name: {key: round(psi, 4) for key, psi in part.items()} for name, part in parts.items()},
        }


def run(job: Job) -> StageRecord:
    """Raises StageError where the model in force is damaged, and where the first of a series is not fit for use;
    ModelError where the training fails."""
    inputs = job.night.digests("preprocess")
    features = job.night.paths("preprocess", "features")
    champion = find_model(job.lake, job.run_date)
    old = load_champion(job.lake, champion, job.book, forced=job.force_retrain)
    drift = measure_drift(old, features) if old else None
    need, reason = judge_need(job.lake, champion, old, job.run_date, job.book, drift)
    drifted = {"drift": drift.to_json() if drift else None}
    if champion and not job.force_retrain and (need == KEPT or (need == DUE and job.keep_model)):
        if reason:
            job.log.warning("the model is kept although a training is due", why=reason)
        return StageRecord("train", inputs, details={**_keep(job, champion), **drifted})
    reason = "forced" if job.force_retrain else reason
    if (private := job.book.training.dp) and not affords_training(job, _name_private(job, features, private)):
        if old is None:
            raise ContractBroken(f"{job.book.codebook}: {TRAINING_SPENT}, and no model is in force")
        job.log.warning(f"the model is kept: {TRAINING_SPENT}", why=reason)
        return StageRecord("train", inputs, details={**_keep(job, champion or {}), **drifted})
    verdict = _train_and_judge(job, champion, old, features)
    gate = {
        "reasons": verdict.reasons,
        "measures": verdict.measures,
        "series": verdict.series,
        "link_lost": verdict.link_lost,
    }
    write_card(job.lake.restricted / "models" / verdict.model.model_version, verdict.model, job.book, features, gate)
    told = {"reason": reason, "gate": verdict.measures, "link_lost": verdict.link_lost, **drifted}
    if verdict.reasons and old is not None:
        refused = {"model_version": verdict.model.model_version, "reasons": verdict.reasons, **tell_cost(verdict.model)}
        return StageRecord("train", inputs, details={**_keep(job, champion or {}), "refused": refused, **told})
    if verdict.reasons:
        raise StageError(
            f"the first model of a series is not fit for use: {'; '.join(verdict.reasons)}. It stays in the registry "
            f"as {verdict.model.model_version}, with a model card; more people or other answers are needed"
        )
    return StageRecord("train", inputs, details={**_describe(job, verdict), **told})


def load_champion(lake: Lake, champion: dict[str, Any] | None, book: Codebook, *, forced: bool = False) -> Model | None:
    """The model in force; None where there is none, or one that was made for other answers or in another format, or
    without the differential privacy that the codebook asks for, or with it.

    Raises StageError where it cannot be read: its unit would be lost unnoticed. A forced training starts anew then.
    """
    if champion is None:
        return None
    try:
        model = load_model(lake.root / champion["folder"])
    except OutdatedModelError:
        return None
    except ModelError as error:
        if forced:
            return None
        raise StageError(
            f"the model in force cannot be read: {error} Or start a new series of models by --force-retrain: its "
            "traits have a unit of their own, and no trend goes on"
        ) from error
    misfits = compare_specs(model.spec, build_spec(book))
    if bool(book.training.dp) != ("privacy" in model.report):
        misfits.append("differential privacy: asked for by only one of the model and the codebook")
    if misfits:
        structlog.get_logger().warning("the model in force does not fit: a new series starts", reasons=misfits)
    return None if misfits else model


def judge_need(
    lake: Lake,
    champion: dict[str, Any] | None,
    old: Model | None,
    run_date: date,
    book: Codebook,
    drift: Drift | None,
) -> tuple[str, str | None]:
    """Whether a training is NEEDED, as no model can be used, DUE or whether the model is KEPT; and why, in words.

    A night before the last published one keeps the model that was in force then: nothing is trained for the past.
    """
    if champion is None:
        return NEEDED, "no model is in force"
    if old is None:
        return NEEDED, "the model in force cannot be used for these answers"
    if lake.manifests()[-1]["run_date"] > run_date.isoformat():
        return KEPT, None
    reason = find_reason(champion, run_date, book, drift)
    return (DUE, reason) if reason else (KEPT, None)


def find_reason(champion: dict[str, Any], run_date: date, book: Codebook, drift: Drift | None) -> str | None:
    """Why a training is due, in words; None where it is not."""
    age = (run_date - date.fromisoformat(champion["trained_on"])).days
    if age >= book.retrain_days:
        return f"the model in force is {age} days old"
    for what, found in (("answers to item", drift.items), ("profiles of trait", drift.profiles)) if drift else ():
        key, psi = max(found.items(), key=lambda pair: pair[1])
        if psi > DRIFT_LIMIT:
            return f"the {what} {key} have drifted (PSI {psi:.2f})"
    return None


def check_need(lake: Lake, run_date: date, book: Codebook) -> str:
    """NEEDED, DUE or KEPT; tonight's answers are looked at where preprocess has written them."""
    champion = find_model(lake, run_date)
    old = load_champion(lake, champion, book)
    nights = [night for night in lake.open_nights() if night.run_date == run_date]
    drift = None
    if old and nights and "preprocess" in nights[-1].records():
        drift = measure_drift(old, nights[-1].paths("preprocess", "features"))
    return judge_need(lake, champion, old, run_date, book, drift)[0]


def measure_drift(model: Model, features: Sequence[Path]) -> Drift:
    """Of tonight's people; profiles are made by the model itself, for as many of them as taught it its unit."""
    paths = sorted(features)
    answers = share_answers(paths, model.spec, SETTINGS.weight_column)
    with fix_threads(SETTINGS.threads):
        profiles = share_traits(model.network, read_sample(paths, model.spec, SETTINGS.weight_column, PEOPLE))
    return Drift(compare_shares(model.report["answers"], answers), compare_shares(model.report["profiles"], profiles))


def _keep(job: Job, champion: dict[str, Any]) -> dict[str, Any]:
    """The champion's details for another night; on the night that promoted it they stay as they were."""
    tonight = ("refused", "reason", "drift", "gate", "link_lost")
    details = {key: value for key, value in champion.items() if key not in tonight}
    return {**details, "promoted": champion["trained_on"] == job.run_date.isoformat()}


@dataclass(frozen=True)
class Verdict:
    """A trained model, the series whose unit it has, the reasons against it, and what they were judged by.

    `link_lost` says why a new series had to start.
    """

    model: Model
    series: str
    reasons: list[str]
    measures: dict[str, Any]
    link_lost: list[str]


def _train_and_judge(job: Job, champion: dict[str, Any] | None, old: Model | None, features: Sequence[Path]) -> Verdict:
    """Goes on from the champion in its unit; where the items no longer hold that, a new series starts.

    A private training always starts one: to link it, statistics of people would be needed that are not private.
    """
    lost: list[str] = []
    if old is not None and champion is not None and not job.book.training.dp:
        try:
            linked = _train_once(job, features, old)
        except LinkError as error:
            lost = error.reasons
            job.log.warning("a new series starts", reasons=lost)
        else:
            return Verdict(linked, champion["series"], *judge_model(linked, old, features, job.book), link_lost=lost)
    fresh = _train_once(job, features, None)
    return Verdict(fresh, fresh.model_version, *judge_model(fresh, old, features, job.book), link_lost=lost)


def _train_once(job: Job, features: Sequence[Path], champion: Model | None) -> Model:
    """Trains under a name made of all that goes in, so that a training done before is found and not done again."""
    if job.book.training.dp:
        return _train_privately(job, features, job.book.training.dp)
    spec, device = build_spec(job.book), choose_arithmetic().device
    made_by = [FORMAT_VERSION, ARCHITECTURE, torch.__version__, champion.model_version if champion else None]
    with share_training(job.lake, features, device) as (ranks, fit):
        settings = replace(SETTINGS, device=device, ranks=ranks)
        version = _name_version(job, [spec.to_json(), asdict(settings), hash_answers(features, spec), made_by])
        folder = job.lake.restricted / "models" / version
        checkpoints = folder.with_name(f".{version}.checkpoints")
        _set_aside_damaged(folder)
        if not folder.exists():
            start = champion.result if champion else None
            save_model(folder, train(features, spec, settings, checkpoints, champion=start, fit=fit), version)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return load_model(folder)


def _train_privately(job: Job, features: Sequence[Path], chosen: PrivateTraining) -> Model:
    """Trains once: the same night asked again finds the model, since noise drawn anew would cost again."""
    # Opacus takes seconds to import: other nights go without.
    from model.private_fitting import Privacy
    from model.private_training import train_privately

    version = _name_private(job, features, chosen)
    folder = job.lake.restricted / "models" / version
    if not folder.exists():
        note_training(job, version, chosen)
        trained = train_privately(features, build_spec(job.book), SETTINGS, Privacy(**chosen.model_dump()))
        save_model(folder, trained, version)
    return load_model(folder)


def _name_private(job: Job, features: Sequence[Path], chosen: PrivateTraining) -> str:
    """It learns no covariates: what is said of them later gives no new name, and costs nothing again."""
    spec = replace(build_spec(job.book), covariates=())
    made_by = [FORMAT_VERSION, ARCHITECTURE, torch.__version__]
    content = [spec.to_json(), asdict(SETTINGS), chosen.model_dump(), hash_answers(features, spec), made_by]
    return _name_version(job, content)


def _name_version(job: Job, content: list[Any]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"{job.run_date.isoformat()}-{digest[:12]}"


def _set_aside_damaged(folder: Path) -> None:
    """A model that cannot be read is kept beside, so that it is made again: of the same answers come the same bits."""
    if folder.exists():
        try:
            load_model(folder)
        except ModelError:
            aside = folder.with_name(f".{folder.name}.damaged")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)


def judge_model(
    model: Model, old: Model | None, features: Sequence[Path], book: Codebook
) -> tuple[list[str], dict[str, Any]]:
    """Reasons against a model, and the figures behind them: see model/gate.py and model/fairness.py.

    How a cohort fares is a reason beside the champion alone. What the questionnaire itself does to a cohort no model
    can undo; a first model shows it.
    """
    reasons = promotable(model.report)
    inputs = survey_inputs(sorted(features), model.spec, SETTINGS.weight_column)
    cells = hide_cells(inputs)
    groups, design = find_groups(features, book, inputs)
    foretold, places = foretell_hidden(model.network, cells), place_simulated(model.network, inputs.held_out >= 0)
    coverage, ranks, intervals = cover_answers(foretold), rank_simulated(places), cover_simulated(places)
    fairness = take_measures(foretold, model.spec)
    measures: dict[str, Any] = {"coverage": coverage, "ranks": ranks, "intervals": intervals}
    measures["link"] = model.report["link"]
    measures["fairness"] = [asdict(figure) for figure in describe_groups(fairness, groups, design)]
    if old is not None:
        new_costs, old_costs = (cost_people(network, cells) for network in (model.network, old.network))
        comparisons = compare_costs(new_costs, old_costs, cells, groups, design)
        before = take_measures(foretell_hidden(old.network, cells), old.spec)
        growths = compare_fairness(fairness, before, groups, design)
        measures["comparisons"] = [asdict(comparison) for comparison in comparisons]
        measures["fairness_growth"] = [asdict(growth) for growth in growths]
        reasons += find_losses(comparisons) + find_unfairness(growths)
    return reasons + find_miscalibration(coverage, ranks, intervals), measures


def find_groups(
    features: Sequence[Path], book: Codebook, inputs: Inputs
) -> tuple[dict[str, npt.NDArray[np.bool_]], Design]:
    """The people whose cells are hidden: members of every group of every cohort, and their design."""
    labels = read_held_out_labels(sorted(features), ["stratum", "psu", *(cohort.key for cohort in book.cohorts)])
    design = design_cells(inputs, labels["stratum"], labels["psu"])
    groups = {}
    for cohort in book.cohorts:
        found = np.array(labels[cohort.key], dtype=object)[: len(design.weights)]
        for group in cohort.groups:
            groups[f"{cohort.key}={group}"] = np.asarray(found == group, dtype=bool)
    return groups, design


def hash_answers(features: Sequence[Path], spec: FeatureSpec) -> str:
    """The sha256 of what a training reads. Those of files will not do: their footers differ from writing to writing."""
    digest = hashlib.sha256()
    columns = [*spec.columns, "fold", "weight"]
    for path in features:
        for batch in pq.ParquetFile(path).iter_batches(columns=columns):
            for name in columns:
                digest.update(batch.column(name).to_numpy().tobytes())
    digest.update(read_covariates(features, spec, PEOPLE).tobytes())
    for part in spec.covariates:  # one that few of these have is learned of others
        people, known = read_known(features, spec, "weight", part)
        digest.update(b"".join(part.tobytes() for part in (people.codes, people.weights, people.folds, known)))
    return digest.hexdigest()


def _describe(job: Job, verdict: Verdict) -> dict[str, Any]:
    model, figures = verdict.model, verdict.model.report["validation"]
    return {
        "model_version": model.model_version,
        "series": verdict.series,
        "folder": f"restricted/models/{model.model_version}",
        "trained_on": job.run_date.isoformat(),
        "promoted": True,
        **tell_cost(model),
        **tell_confirmed(job, model),
        "linking_errors": (model.report["link"] or {}).get("errors", {}),
        "validation": {
            "nats_per_answer": figures["nats_per_answer"],
            "margins_nats_per_answer": figures["margins_per_answer"],
        },
    }


def tell_confirmed(job: Job, model: Model) -> dict[str, Any]:
    """What the model has learned of what clinicians found; nothing where nobody says what they did.

    `gain` is how much less a held-out person's severity costs once the answers are known, in nats; None of too few.
    """
    told = job.book.feedback.confirmed if job.book.feedback else None
    found = next((one for one in model.report["covariates"] if told and one["key"] == told.key), None)
    if found is None:
        return {}
    known = found["cost"] is not None and found["margin_cost"] is not None
    gain = found["margin_cost"] - found["cost"] if known else None
    return {"confirmed": {"people": found["people"], "learned": bool(found["slopes"]), "gain": gain}}


def tell_cost(model: Model) -> dict[str, Any]:
    """What the ledger needs to know of a private training; nothing of any other."""
    told = model.report.get("privacy")
    return {"privacy": {name: told[name] for name in ("epsilon", "delta")}} if told else {}
