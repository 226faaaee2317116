"""What the lake tells of its nights: the published ones from their manifests, those in the making from stage records.

The counts are exact, as those of manifests are: what is made of them stays in the restricted zone.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from expectations.codebook_parts import Calendar
from jobs.lake import ORDER, Lake
from jobs.release_calendar import Decision

FATES = ("features", "quarantined", "duplicates", "ineligible", "withdrawn")
DRIFT_WARNINGS = ("row_count", "answer_shares")  # the rules by which `validate` compares an extract with the last one


@dataclass(frozen=True)
class Shift:
    """The furthest of several drifts: whose it is, and its PSI."""

    key: str
    psi: float

    @staticmethod
    def find(found: Mapping[str, float]) -> "Shift | None":
        return Shift(*max(found.items(), key=lambda pair: pair[1])) if found else None


@dataclass(frozen=True)
class Drift:
    """How far answers and profiles lie from those that the model was made on; `limit` is what makes a training due."""

    limit: float
    answers: Shift | None
    profiles: Shift | None

    @property
    def exceeded(self) -> bool:
        return any(shift.psi > self.limit for shift in (self.answers, self.profiles) if shift)

    @staticmethod
    def from_json(raw: Mapping[str, Any] | None) -> "Drift | None":
        return Drift(raw["limit"], Shift.find(raw["items"]), Shift.find(raw["profiles"])) if raw else None


@dataclass(frozen=True)
class Published:
    """A published night. `seconds` are by stage; `set_aside` are rows of the quarantine by rule (a row may break two).

    `trained` says why a model was trained that night, None where none was; `refused` why it did not come into force.
    """

    run_date: str
    token: int
    published_at: str
    codebook: str
    codebook_sha256: str
    seconds: Mapping[str, float]
    delivered: int
    rows: Mapping[str, int]
    set_aside: Mapping[str, int]
    warnings: tuple[str, ...]
    drift: Drift | None
    model_version: str
    series: str
    trained: str | None
    refused: tuple[str, ...]
    release: Decision

    @property
    def drifted(self) -> bool:
        """Whether its inputs or profiles lay past their limits."""
        return bool(self.drift and self.drift.exceeded) or any(rule in DRIFT_WARNINGS for rule in self.warnings)


@dataclass(frozen=True)
class Making:
    """A night in the making: since when, and which stages have a record already."""

    run_date: str
    token: int
    since: str
    done: tuple[str, ...]


def list_published(lake: Lake) -> list[Published]:
    """The published nights in the order of their dates."""
    return [_summarise(manifest, _name_manifest(lake, manifest)) for manifest in lake.manifests()]


def find_next_release(lake: Lake, night: Published) -> date | None:
    """The first date on which another night can be released after this one; None where its codebook has no calendar.

    By the dates alone: a calendar may ask for movers, too, and what that night will say of them nobody knows yet.
    """
    if not night.release.public:
        return night.release.next_possible
    kept = lake.restricted / "codebooks" / f"{night.codebook_sha256}.yaml"
    rules = yaml.safe_load(kept.read_text()).get("disclosure") or {} if kept.exists() else {}
    if not rules.get("calendar"):
        return None
    return date.fromisoformat(night.run_date) + timedelta(days=Calendar(**rules["calendar"]).least_days)


def list_making(lake: Lake) -> list[Making]:
    making = []
    for marker in sorted(lake.staging.glob("*/night.json")):
        with suppress(FileNotFoundError):  # given up, or published, in this moment
            night, since = json.loads(marker.read_text()), read_time(marker)
            done = tuple(stage for stage in ORDER if (marker.parent / f"{stage}.json").exists())
            making.append(Making(night["run_date"], night["token"], since, done))
    return making


def read_time(file: Path) -> str:
    """When a file was written, in UTC."""
    return datetime.fromtimestamp(file.stat().st_mtime, UTC).isoformat(timespec="seconds")


def _name_manifest(lake: Lake, manifest: Mapping[str, Any]) -> Path:
    return lake.restricted / "runs" / f"run_date={manifest['run_date']}" / f"{manifest['token']:08d}.json"


def _summarise(manifest: Mapping[str, Any], file: Path) -> Published:
    stages, model = manifest["stages"], manifest["model"]
    validated = stages["validate"]["details"]
    release = manifest.get("release") or {}
    # Nights of before the release calendar say nothing of it: they were public.
    decision = Decision.from_json(release if "public" in release else None)
    return Published(
        run_date=manifest["run_date"],
        token=manifest["token"],
        published_at=read_time(file),
        codebook=manifest["codebook"]["name"],
        codebook_sha256=manifest["codebook"]["sha256"],
        seconds={stage: stages[stage]["seconds"] for stage in ORDER if stage in stages},
        delivered=manifest["rows"]["delivered"],
        rows={fate: manifest["rows"][fate] for fate in FATES},
        set_aside=validated.get("failed_rules", {}),
        warnings=tuple(sorted({warning["rule"] for warning in validated.get("warnings", ())})),
        drift=Drift.from_json(model.get("drift")),
        model_version=model["model_version"],
        series=model["series"],
        trained=model.get("reason"),
        refused=tuple(model.get("refused", {}).get("reasons", ())),
        release=decision,
    )
