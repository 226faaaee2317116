"""What has changed of published nights since their manifests were closed: people were erased, or have new pseudonyms.

`restricted/amendments.json` says which files people's tables of a night consist of now, under which key their
pseudonyms are, and which models were retired. It is replaced in one step, so that all nights change at once. Manifests,
and all that is public, stay as they were published: made anew without one person, they would tell of that person.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FILE = "amendments.json"
Files = Sequence[dict[str, Any]]  # as manifests have them: path, rows, size, sha256


@dataclass(frozen=True)
class Amendment:
    """Of one night: the files of its people's tables, and how many rows of erased people were in two of them."""

    tables: Mapping[str, Files]
    accepted: int = 0
    quarantined: int = 0


@dataclass(frozen=True)
class Amendments:
    """By a night's token, and by a model's version the date on which it was retired. `key` is a name of the key."""

    key: str | None = None
    nights: Mapping[int, Amendment] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> str:
        nights = {str(token): asdict(night) for token, night in self.nights.items()}
        return json.dumps({"key": self.key, "nights": nights, "models": dict(self.models)}, indent=1, sort_keys=True)


def read_amendments(restricted: Path) -> Amendments:
    """Of the lake's restricted zone; nothing where nothing was ever amended."""
    try:
        raw = json.loads((restricted / FILE).read_text())
    except FileNotFoundError:
        return Amendments()
    nights = {
        int(token): Amendment(
            {name: tuple(files) for name, files in n["tables"].items()}, n["accepted"], n["quarantined"]
        )
        for token, n in raw["nights"].items()
    }
    return Amendments(raw["key"], nights, raw["models"])


def amend_manifest(manifest: dict[str, Any], amendments: Amendments) -> None:
    """Changes a manifest that was read to what is so now; `closed_rows` keeps the rows as they were published."""
    stages = manifest["stages"]
    if amendments.key:
        stages["validate"]["details"]["key"] = amendments.key
    night = amendments.nights.get(manifest["token"])
    if night is None:
        return
    for record in stages.values():
        record["tables"] = {name: list(night.tables.get(name, files)) for name, files in record["tables"].items()}
    manifest["closed_rows"] = dict(manifest["rows"])
    counts = {stage: stages[stage]["counts"] for stage in ("validate", "preprocess", "score")}
    _move(counts["validate"], {"accepted": night.accepted, "quarantined": night.quarantined}, "withdrawn")
    _move(counts["preprocess"], {"features": night.accepted})
    _move(counts["score"], {"profiles": night.accepted})
    _move(manifest["rows"], {"features": night.accepted, "quarantined": night.quarantined}, "withdrawn")
    _move(manifest["rows"], {"profiles": night.accepted})


def _move(counts: dict[str, int], rows: Mapping[str, int], to: str | None = None) -> None:
    for name, count in rows.items():
        counts[name] -= count
        if to:
            counts[to] = counts.get(to, 0) + count
