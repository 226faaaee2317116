"""The lake: where tables are, whose turn it is, and what of a night is written but not yet published.

restricted/   (mode 0700) people: accepted, quarantine, design, features, profiles, cohort_sums, cohorts_internal,
              models, runs
public/       what has passed disclosure control
Data files are immutable and named by their content. A night in the making is a folder of stage records under
restricted/staging/<token>; it becomes real when `publish` creates its manifest.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from jobs.amendments import Amendments, amend_manifest, read_amendments
from jobs.errors import StageError, UsageError
from jobs.lease import Lease

PUBLIC_TABLES = ("cohorts", "quality", "distributions")
RESTRICTED_TABLES = (
    *("accepted", "quarantine", "feedback", "feedback_quarantine", "design", "features", "profiles"),
    *("cohort_sums", "cohorts_internal", "suppressions", "calibration"),
)
# Of these: those with a row a person.
PEOPLE_TABLES = ("accepted", "quarantine", "feedback", "feedback_quarantine", "features", "profiles")
FOLDERS = ("runs", "models", "leases")
ORDER = ("validate", "preprocess", "train", "score", "aggregate", "report", "publish")


@dataclass(frozen=True)
class DataFile:
    """One immutable file; `path` is relative to the lake."""

    path: str
    rows: int
    size: int
    sha256: str


@dataclass(frozen=True)
class StageRecord:
    """What one stage did: the records it read, the tables it wrote, its counts, and details for the manifest."""

    stage: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, tuple[DataFile, ...]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def digest(self) -> str:
        """A name for the record's content, timings apart."""
        content = {"tables": {t: [vars(f) for f in fs] for t, fs in self.tables.items()}, "details": self.details}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "tables": {t: [vars(f) for f in fs] for t, fs in self.tables.items()}}

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> "StageRecord":
        tables = {t: tuple(DataFile(**f) for f in fs) for t, fs in raw["tables"].items()}
        return StageRecord(**{**raw, "tables": tables})


def write_atomically(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Replaces a file in one step; readers see the old one or the new one, and never one that is shut to them."""
    data = content.encode() if isinstance(content, str) else content
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with scratch.open("wb") as file:
            scratch.chmod(mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise


def check_kept(manifest: Mapping[str, Any]) -> None:
    """Raises StageError where people's tables of a published night were removed for their age."""
    if "retired" in manifest:
        raise StageError(
            f"people's tables of the night of {manifest['run_date']} were removed on {manifest['retired']}, after the "
            "time for which they are kept: deliver the extract and run the date again"
        )


def is_public(manifest: Mapping[str, Any]) -> bool:
    """Whether a published night was released to the public zone; nights of before the release calendar were."""
    return bool((manifest.get("release") or {}).get("public", True))


def list_public(manifests: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [manifest for manifest in manifests if is_public(manifest)]


def flush(path: Path) -> None:
    """Waits until a file's content, or a folder's entries, are on the disk: a manifest must not outlive its files."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Lake:
    """The two zones under one root."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.restricted = self.root / "restricted"
        self.public = self.root / "public"
        self.staging = self.restricted / "staging"
        self.retired = self.restricted / "retired"
        self.lease: Lease | None = None

    def prepare(self) -> None:
        """Makes the zones; people's tables are for the owner alone. Raises UsageError where a file is in the way."""
        try:
            if not self.root.is_dir():
                self.root.mkdir(parents=True)
                self.root.chmod(0o755)  # the umask would keep readers of public/ out
        except (FileExistsError, NotADirectoryError):
            raise UsageError(f"{self.root} is a file, or lies in one: name the lake's folder by --lake") from None
        for folder in (self.restricted, self.staging, *map(self.restricted.joinpath, FOLDERS)):
            folder.mkdir(mode=0o700, exist_ok=True)
        self.restricted.chmod(0o700)
        self.public.mkdir(exist_ok=True)
        self.public.chmod(0o755)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keeps every other run out, as long as this process lives and its machine renews the lease.

        Raises LakeHeld where another process is in.
        """
        self.prepare()
        self.lease = Lease.take(self.restricted / "leases")
        try:
            yield
        finally:
            self.lease.let_go()
            self.lease = None

    def check_lease(self) -> None:
        """Raises LeaseLost where this run held the lake and another one has taken it since."""
        if self.lease:
            self.lease.check()

    @property
    def holder_token(self) -> int:
        """The fencing token of the lease that is held; 0 without one."""
        return self.lease.token if self.lease else 0

    def keep_codebook(self, file: Path, digest: str) -> None:
        """Keeps the codebook's text, by which its nights can be replayed when its file has changed."""
        folder = self.restricted / "codebooks"
        folder.mkdir(mode=0o700, exist_ok=True)
        if not (folder / f"{digest}.yaml").exists():
            write_atomically(folder / f"{digest}.yaml", file.read_bytes())

    def zone(self, table: str) -> Path:
        return self.public if table in PUBLIC_TABLES else self.restricted

    def table_folder(self, table: str, run_date: date) -> Path:
        folder = self.zone(table) / table / f"run_date={run_date.isoformat()}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def open_night(self, run_date: date, records: Iterable[StageRecord] = ()) -> "Night":
        """A new night of the date, under the next fencing token. Tokens only rise, also after a night was given up.

        It begins with these records; its marker comes last, so that a half-opened one is never taken up.
        """
        self.check_lease()
        token = self.last_token() + 1
        write_atomically(self.restricted / "token", str(token))
        night = Night(self, run_date, token)
        night.folder.mkdir(mode=0o700)
        for record in records:
            night.write(record)
        write_atomically(night.folder / "night.json", json.dumps({"run_date": run_date.isoformat(), "token": token}))
        return night

    def last_token(self) -> int:
        """The highest token that was ever given; 0 before the first."""
        counter = self.restricted / "token"
        return int(counter.read_text()) if counter.exists() else 0

    def current_night(self, run_date: date) -> "Night":
        """The newest night of the date that is in the making.

        Raises StageError where no night of the date was opened.
        """
        tokens = [n.token for n in self.open_nights() if n.run_date == run_date]
        if not tokens:
            raise StageError(f"no night of {run_date} is in the making: run `mindcensus validate` first")
        return Night(self, run_date, max(tokens))

    def open_nights(self) -> list["Night"]:
        nights = []
        for file in sorted(self.staging.glob("*/night.json")):
            raw = json.loads(file.read_text())
            nights.append(Night(self, date.fromisoformat(raw["run_date"]), raw["token"]))
        return nights

    def manifests(self) -> list[dict[str, Any]]:
        """The published nights in the order of their dates: for each date the manifest with the highest token."""
        folders = sorted((self.restricted / "runs").glob("run_date=*"))
        # Names are zero-padded tokens, so the last one has the highest.
        found = [sorted(folder.glob("[0-9]*.json")) for folder in folders]
        return self.read_manifests([files[-1] for files in found if files])

    def issued(self) -> list[dict[str, Any]]:
        """Every manifest there is in the order of their tokens, of superseded nights too: what readers have had."""
        files = (self.restricted / "runs").glob("run_date=*/[0-9]*.json")
        return self.read_manifests(sorted(files, key=lambda file: file.name))

    def read_manifests(self, files: Iterable[Path]) -> list[dict[str, Any]]:
        """Manifests as they are since: see jobs/amendments.py."""
        amendments = read_amendments(self.restricted)
        return [self._read_manifest(file, amendments) for file in files]

    def key_name(self) -> str | None:
        """The name of the key of the lake's pseudonyms; None in a lake that has none yet."""
        key, manifests = read_amendments(self.restricted).key, self.manifests()
        return key or (manifests[-1]["stages"]["validate"]["details"].get("key") if manifests else None)

    def _read_manifest(self, file: Path, amendments: Amendments) -> dict[str, Any]:
        """A manifest without the tables that `mindcensus retain` has removed since; `retired` then says when."""
        manifest: dict[str, Any] = json.loads(file.read_text())
        amend_manifest(manifest, amendments)
        record = self.retired / file.name
        if record.exists():
            retired = json.loads(record.read_text())
            manifest["retired"] = retired["on"]
            for stage in manifest["stages"].values():
                stage["tables"] = {
                    name: files for name, files in stage["tables"].items() if name not in retired["tables"]
                }
        return manifest

    def published(self, run_date: date) -> dict[str, Any] | None:
        return next((m for m in self.manifests() if m["run_date"] == run_date.isoformat()), None)

    def last_before(self, run_date: date) -> dict[str, Any] | None:
        """The last published night before the date."""
        earlier = [m for m in self.manifests() if m["run_date"] < run_date.isoformat()]
        return earlier[-1] if earlier else None


class Night:
    """One attempt at one date: its stage records, its scratch folders, and the files that it adds to the lake."""

    def __init__(self, lake: Lake, run_date: date, token: int) -> None:
        self.lake, self.run_date, self.token = lake, run_date, token
        self.folder = lake.staging / f"{token:08d}"

    def read(self, stage: str) -> StageRecord:
        """A stage's record. Raises StageError where the stage has not run."""
        file = self.folder / f"{stage}.json"
        if not file.exists():
            raise StageError(f"{stage} has not run for {self.run_date}: run `mindcensus {stage}` first")
        return StageRecord.from_json(json.loads(file.read_text()))

    def records(self) -> dict[str, StageRecord]:
        return {stage: self.read(stage) for stage in ORDER if (self.folder / f"{stage}.json").exists()}

    def write(self, record: StageRecord) -> None:
        self.lake.check_lease()
        write_atomically(self.folder / f"{record.stage}.json", json.dumps(record.to_json(), indent=1, sort_keys=True))

    def digests(self, *stages: str) -> dict[str, str]:
        """What a stage's `inputs` hold: the records it read."""
        return {stage: self.read(stage).digest() for stage in stages}

    def scratch(self, name: str) -> Path:
        """An empty folder for a stage's unfinished files.

        Each process has its own: the JVM of one that was killed may write on for a moment.
        """
        stage = self.folder / "scratch" / name
        shutil.rmtree(stage, ignore_errors=True)
        folder = stage / str(os.getpid())
        folder.mkdir(parents=True, mode=0o700)
        return folder

    def paths(self, stage: str, table: str) -> list[Path]:
        return [self.lake.root / file.path for file in self.read(stage).tables[table]]

    def adopt(self, files: Sequence[Path], table: str, first: int = 0) -> tuple[DataFile, ...]:
        """Moves finished Parquet files into the table's folder of this date, each named by token, place and content.

        `first` is the place of the first of them. They stay invisible to the catalog until a manifest names them.
        """
        self.lake.check_lease()
        folder = self.lake.table_folder(table, self.run_date)
        adopted = []
        for index, file in enumerate(sorted(files), first):
            digest, rows = hash_file(file), pq.read_metadata(file).num_rows
            target = folder / f"{self.token:08d}-{index:05d}-{digest[:16]}.parquet"
            size = file.stat().st_size
            file.chmod(0o644 if self.lake.zone(table) == self.lake.public else 0o600)
            flush(file)
            file.replace(target)
            adopted.append(DataFile(str(target.relative_to(self.lake.root)), rows, size, digest))
        flush(folder)
        return tuple(adopted)
