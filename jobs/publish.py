"""Stage 7: the manifest appears, all at once; what it does not name does not exist."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from typing import Any

from jobs.amendments import read_amendments
from jobs.analyses import remove_absent
from jobs.catalog import write_catalog
from jobs.dictionary import write_dictionary
from jobs.disclosure_profiles import OPENSAFELY, PROFILES, redact_fates
from jobs.dp_ledger import DP, check_budget, describe_privacy, name_mechanism
from jobs.errors import StageError, UsageError
from jobs.job import Job
from jobs.lake import (
    ORDER,
    PUBLIC_TABLES,
    RESTRICTED_TABLES,
    Lake,
    Night,
    StageRecord,
    flush,
    list_public,
    write_atomically,
)
from jobs.promotions import list_promotions
from jobs.provenance import hash_code, list_files
from jobs.release_calendar import check_calendar
from jobs.releases import audit_release, check_exposed, digest_release, find_sign_off

NEEDED = ORDER[:-1]
FILES = "files.csv"  # the public zone's published files, for tools that do not read the catalog


def run(job: Job) -> StageRecord:
    """Publishes the night. Raises StageError where a stage is missing, stale, or lost rows."""
    records = {stage: job.night.read(stage) for stage in NEEDED}
    manifest = build_manifest(job.night, records)
    _check_chain(records)
    _check_files(job.lake, records)
    for published in job.lake.manifests():
        # The catalogs name these too: a file that is gone must be known before the night is published, not after.
        stages = {name: StageRecord.from_json(raw) for name, raw in published["stages"].items()}
        _check_files(job.lake, stages, f" (of the night of {published['run_date']}: restore it from a backup)")
    newest = job.lake.published(job.run_date)
    if newest and newest["token"] > job.night.token:
        raise StageError(f"a later night of {job.run_date} is published already: this one is given up")
    decision = check_calendar(job, records["aggregate"])
    manifest["release"] = decision.to_json()
    if decision.public:
        manifest["release"] |= describe_release(job, records)
        if job.book.disclosure.dp:
            check_budget(job)
        else:
            check_exposed(audit_release(job.lake, manifest, job.book, job.night.scratch("audit")))
    else:
        job.log.info(f"release: internal, next possible on {decision.next_possible}", why=decision.why)
    job.lake.check_lease()
    _create_manifest(job.lake, job.night, manifest)
    refresh(job)
    return StageRecord("publish", counts=manifest["rows"])


def describe_release(job: Job, records: Mapping[str, StageRecord]) -> dict[str, Any]:
    """The release's digest and rule set, who signed it off, and which one (by its token) it corrects, and why.

    Raises NotSignedOff where it waits for a person, UsageError where such a release corrects one without a reason.
    """
    rules = job.book.disclosure
    folder = job.lake.restricted / "runs" / f"run_date={job.run_date.isoformat()}"
    before = [json.loads(file.read_text()) for file in folder.glob("[0-9]*.json") if int(file.stem) < job.night.token]
    earlier = [manifest["token"] for manifest in list_public(before)]
    if rules.review and earlier and not job.reason:
        raise UsageError(f"{job.run_date} is published already: say why it is corrected by --reason TEXT")
    return {
        "digest": digest_release(records),
        "profile": rules.profile,
        "signed_off_by": find_sign_off(job.night, records)["by"] if rules.review else None,
        "corrects": max(earlier, default=None),
        "reason": job.reason,
        "privacy": describe_privacy(rules.dp) if rules.dp else None,
    }


def build_manifest(night: Night, records: Mapping[str, StageRecord]) -> dict[str, Any]:
    """The run's manifest; raises StageError where the rows of the stages do not add up."""
    counts = records["validate"].counts
    rows = {
        "delivered": counts["delivered"],
        "features": records["preprocess"].counts["features"],
        "quarantined": counts["quarantined"],
        "withdrawn": counts.get("withdrawn", 0),  # nights of before there was consent have no count
        "duplicates": counts["duplicates"],
        "ineligible": counts["ineligible"],
        "profiles": records["score"].counts["profiles"],
    }
    where = ("features", "quarantined", "withdrawn", "duplicates", "ineligible")
    if rows["delivered"] != sum(rows[name] for name in where):
        told = ", ".join(f"{name} {rows[name]:,}" for name in ("delivered", *where))
        raise StageError(f"rows were lost or doubled: {told}; nothing is published, report this fault")
    if rows["profiles"] != rows["features"]:
        raise StageError(f"{rows['features']:,} people have features but {rows['profiles']:,} a profile: score again")
    return {
        "run_date": night.run_date.isoformat(),
        "token": night.token,
        "mindcensus": version("mindcensus"),
        "code_sha256": hash_code(),
        "codebook": records["validate"].details["codebook"],
        "model": records["train"].details,
        "rows": rows,
        "stages": {stage: record.to_json() for stage, record in records.items()},
    }


def _check_chain(records: Mapping[str, StageRecord]) -> None:
    for stage, record in records.items():
        for read, digest in record.inputs.items():
            if records[read].digest() != digest:
                raise StageError(f"{read} has run again since {stage}: run `mindcensus {stage}` and what follows it")


def _check_files(lake: Lake, records: Mapping[str, StageRecord], remedy: str = "") -> None:
    for record in records.values():
        for file in (file for files in record.tables.values() for file in files):
            path = lake.root / file.path
            if not path.exists() or path.stat().st_size != file.size:
                raise StageError(f"{file.path} is missing or damaged{remedy or f': run {record.stage} again'}")
    report = records["report"].details.get("report")
    if report and not (lake.root / report).exists():
        raise StageError(f"{lake.root / report} is missing{remedy or ': run report again'}")


def _create_manifest(lake: Lake, night: Night, manifest: Mapping[str, Any]) -> None:
    """One exclusive create decides: the link either makes the whole file or finds that it is there."""
    folder = lake.restricted / "runs" / f"run_date={night.run_date.isoformat()}"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{night.token:08d}.json"
    scratch = night.folder / "manifest.json"
    write_atomically(scratch, json.dumps(manifest, indent=1, sort_keys=True))
    try:
        os.link(scratch, target)
    except FileExistsError:
        # An earlier try was stopped before the catalogs were made; anything else must not pass as published.
        if json.loads(target.read_text()) != manifest:
            raise StageError(f"another night has the token {night.token}: run `mindcensus validate` again") from None
    flush(folder)


def refresh(job: Job) -> None:
    """Makes anew what follows from the manifests: history of models, public manifests, latest report, catalogs.

    Killed at any moment and run again, it ends the same; what is left over of unpublished nights goes last. A run that
    stood still in here, while another one published, makes it of the manifests that there are now.
    """
    manifests: list[dict[str, Any]] = []
    while manifests != (found := job.lake.manifests()):
        manifests = found
        _write_views(job, manifests)
    remove_absent(job.lake, manifests[-1])
    _clean(job.lake, job.night)


def _write_views(job: Job, manifests: Sequence[dict[str, Any]]) -> None:
    """After an internal night everything public is made anew of the releases before: it says what it said."""
    # The charting library takes a second: every command imports this module.
    from jobs.night_page import write_night_page

    released = [hide_names(manifest) for manifest in list_public(manifests)]
    history = json.dumps(list_promotions(manifests), indent=1)
    write_atomically(job.lake.restricted / "models" / "promotions.json", history)
    for manifest in released:
        _write_public_manifest(job.lake, manifest)
    # Before the catalog names the files, so that whoever could read the night before can read this one.
    _open_public(job.lake)
    write_catalog(job.lake.restricted, manifests)
    write_catalog(job.lake.public, released)
    write_night_page(job.lake)
    write_atomically(job.lake.public / FILES, list_files(released, PUBLIC_TABLES), 0o644)
    if released[-1]["run_date"] == job.run_date.isoformat():
        write_dictionary(job.lake.public, job.book)
    report = job.lake.root / released[-1]["stages"]["report"]["details"]["report"]
    write_atomically(job.lake.public / "reports" / "latest.html", report.read_bytes(), 0o644)


def hide_names(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest without names that follow from people's answers, where its release is differentially private."""
    if name_mechanism(manifest) != DP:
        return manifest
    unnamed, stages = {"model_version": None, "series": None}, manifest["stages"]
    trained = {**stages["train"], "details": {**stages["train"]["details"], **unnamed}}
    hidden = {"model": {**manifest["model"], **unnamed}, "stages": {**stages, "train": trained}}
    return {**manifest, **hidden, "release": {**manifest["release"], "digest": None}}


def _write_public_manifest(lake: Lake, manifest: Mapping[str, Any]) -> None:
    folder = lake.public / "runs" / f"run_date={manifest['run_date']}"
    folder.mkdir(parents=True, exist_ok=True)
    made = manifest["stages"]["aggregate"]["tables"]
    # Nights of before the codebook could choose have the default.
    profile = PROFILES[(manifest.get("release") or {}).get("profile", OPENSAFELY.name)]
    # As they were when they were published: people who were erased since would show in the difference.
    closed = manifest.get("closed_rows", manifest["rows"])
    counts = {name: count for name, count in closed.items() if name != "profiles"}
    rows = redact_fates(counts, profile)  # as many profiles as features
    if name_mechanism(manifest) == DP:
        rows = dict.fromkeys(rows)  # counts without noise
    content = {
        "run_date": manifest["run_date"],
        "token": manifest["token"],
        "mindcensus": manifest["mindcensus"],
        "code_sha256": manifest.get("code_sha256"),
        "codebook": manifest["codebook"],
        "model_version": manifest["model"]["model_version"],
        "model_series": manifest["model"]["series"],
        "rows": {**rows, "profiles": rows["features"]},
        "tables": {table: made[table] for table in PUBLIC_TABLES if table in made},
        "report": manifest["stages"]["report"]["details"],
        "release": manifest.get("release"),
    }
    target = folder / f"{manifest['token']:08d}.json"
    write_atomically(target, json.dumps(content, indent=1, sort_keys=True), 0o644)


def _open_public(lake: Lake) -> None:
    """The program's umask shuts everything; what has passed disclosure control is for every reader."""
    for path in lake.public.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _clean(lake: Lake, night: Night) -> None:
    """Removes what this date's attempts and killed runs left: staging, and data files that no manifest names."""
    lake.check_lease()
    remove_unnamed(lake, night.run_date, night.token)
    amended = read_amendments(lake.restricted).nights
    issued = lake.issued() if amended else []
    for day in {manifest["run_date"] for manifest in issued if manifest["token"] in amended}:
        # An erasure may have been stopped before it had removed what nothing names any more.
        remove_unnamed(lake, date.fromisoformat(day), night.token)
    for old in lake.open_nights():
        if old.run_date == night.run_date and old.token <= night.token:
            remove_night(old)
    for unmarked in lake.staging.iterdir():
        # Not a later night that is being opened just now.
        later = unmarked.name.isdigit() and int(unmarked.name) > night.token
        if not later and not (unmarked / "night.json").exists():
            shutil.rmtree(unmarked)
    for spilled in (lake.restricted / "spark").glob("*"):  # of executors that were killed
        shutil.rmtree(spilled, ignore_errors=True)
    # The zones alone: what lies beside them in the lake's folder is the deliverer's.
    for unfinished in (path for zone in (lake.restricted, lake.public) for path in list(zone.rglob(".*.tmp"))):
        shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink()


def remove_unnamed(lake: Lake, run_date: date, token: int) -> None:
    """Removes the date's data files and reports, up to a token, that no manifest names."""
    folder = lake.restricted / "runs" / f"run_date={run_date.isoformat()}"
    named = set()
    for manifest in lake.read_manifests(folder.glob("[0-9]*.json")):
        stages = manifest["stages"]
        named |= {f["path"] for s in stages.values() for files in s["tables"].values() for f in files}
        named.add(stages["report"]["details"].get("report"))
    folders = [lake.zone(table) / table / folder.name for table in (*PUBLIC_TABLES, *RESTRICTED_TABLES)]
    folders.append(lake.public / "reports" / folder.name)
    for file in (file for table in folders for file in table.glob("[0-9]*.*")):
        if int(file.name[:8]) <= token and str(file.relative_to(lake.root)) not in named:
            file.unlink()


def remove_night(night: Night) -> None:
    """Forgets a night in the making; the marker goes first, so that a half-removed one is never taken up."""
    (night.folder / "night.json").unlink(missing_ok=True)
    shutil.rmtree(night.folder, ignore_errors=True)
