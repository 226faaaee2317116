"""An analysis of one's own: what a person's answers say, as plain figures, for pages in words and as JSON.

Of the last published night alone: who is not in it may have withdrawn the consent that earlier nights rest on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from expectations.care import Care, read_care
from expectations.codebook import Codebook, read_codebook
from expectations.codebook_parts import Scale
from jobs.advising import choose_advice, tell_advice, tell_answer
from jobs.catalog import find_files
from jobs.errors import StageError, UsageError
from jobs.explain import find_inputs
from jobs.lake import Lake, check_kept
from jobs.occasions import Occasion, Row, find_earlier, read_rows, read_times
from jobs.purpose import require_care
from model.change import measure_changes
from model.explaining import explain
from model.registry import Model, load_model
from model.scoring import NINETY_PERCENT
from model.spec import MISSING, PERSON
from model.standing import GroupNorms

TOGETHER = 256  # people
FEWEST_IN_GROUP, MOST_IN_GROUP = 100, 20_000  # people of a group that somebody is compared with
UNUSUAL_FIT = 5.0  # percentile: less usual answers are told of
LEAST_MOVE = 0.02  # reference sds
MOST_ANSWERS = 5  # that are named for a trait

Analysis = dict[str, Any]
Group = tuple[str, ...]


@dataclass(frozen=True)
class Desk:
    """What every analysis of a night needs.

    `calibration` has a row for each total of the scale that clinicians confirm; `groups` keeps the norms of groups that
    somebody was compared with.
    """

    lake: Lake
    manifest: Mapping[str, Any]
    book: Codebook
    care: Care
    model: Model
    calibration: Mapping[float, Row] = field(default_factory=dict)
    groups: dict[Group, dict[str, GroupNorms] | None] = field(default_factory=dict)

    def analyse(self, people: Sequence[str]) -> Iterator[Analysis]:
        """Analyses of the people who are in the night, in their order; the others are passed over."""
        for start in range(0, len(people), TOGETHER):
            yield from self._analyse_some(people[start : start + TOGETHER])

    def _analyse_some(self, people: Sequence[str]) -> Iterator[Analysis]:
        profiles = read_rows(self.lake, self.manifest, "profiles", people)
        items = [item.key for item in self.book.items]
        features = read_rows(self.lake, self.manifest, "features", people, PERSON, *items)
        people = [person for person in people if person in profiles]
        times = read_times(self.lake, self.manifest, self.book, people)
        earlier = find_earlier(self.lake, self.manifest, self.book, times)
        changes = self._measure(features, earlier)
        moves: dict[str, list[Row]] = {person: [] for person in people}
        for row in explain(self.model, self._tabulate([features[person] for person in people])).to_pylist():
            moves[row[PERSON]].append(row)
        for person in people:
            codes = {item.key: features[person][item.key] for item in self.book.items}
            traits = [self._describe(trait.key, profiles[person], codes, moves[person]) for trait in self.book.traits]
            for trait in traits:
                trait["changes"] = [one[trait["trait"]] for one in changes.get(person, [])]
            yield self._put_together(profiles[person], codes, times.get(person), traits)

    def _tabulate(self, rows: list[Row]) -> pa.Table:
        schema = pa.schema([(PERSON, pa.string()), *[(key, pa.int8()) for key in self.model.spec.columns]])
        return pa.Table.from_pylist(rows, schema=schema)

    def _measure(
        self, features: Mapping[str, Row], earlier: Mapping[str, list[Occasion]]
    ) -> dict[str, list[dict[str, Row]]]:
        """By person, for each earlier occasion the change of every trait since."""
        pairs = [(person, occasion) for person, occasions in earlier.items() for occasion in occasions]
        keys = [item.key for item in self.book.items]
        places = [keys.index(key) for key in self.model.spec.columns]
        shape = (len(pairs), len(keys))
        before = np.array([one.codes for _, one in pairs], dtype=np.int8).reshape(shape)[:, places]
        after = np.array([[features[person][key] for key in keys] for person, _ in pairs], dtype=np.int8).reshape(shape)
        found = measure_changes(self.model.network, before, after[:, places])
        p_values = found.test_rise()
        told: dict[str, list[dict[str, Row]]] = {}
        for number, (person, occasion) in enumerate(pairs):
            one = {}
            for place, trait in enumerate(self.model.spec.traits):
                low, high = float(found.low[number, place]), float(found.high[number, place])
                one[trait.key] = {
                    "since": occasion.answered_at.isoformat(),
                    "reliable": bool(found.reliable[number]),
                    "median": round(float(found.median[number, place]), 3),
                    "low": round(low, 3),
                    "high": round(high, 3),
                    "p_rise": float(p_values[number, place]),
                    "clear": ("risen" if low > 0 else "fallen" if high < 0 else None)
                    if found.reliable[number]
                    else None,
                }
            told.setdefault(person, []).append(one)
        return told

    def _describe(self, key: str, profile: Row, codes: Mapping[str, int], moves: Sequence[Row]) -> Row:
        """One trait: where the person stands, among whom, and which answers say so."""
        trait = next(trait for trait in self.book.traits if trait.key == key)
        scale = self.book.scale(trait.scale)
        named = {"percentile": "", "low": "_low", "high": "_high"}
        own = sorted((row for row in moves if row["trait"] == key), key=lambda row: (-abs(row["moved"]), row["item"]))
        return {
            "trait": key,
            "label": trait.label or key,
            "mean": round(profile[f"{key}_mean"], 3),
            "sd": round(profile[f"{key}_sd"], 3),
            "reference": {name: _round(profile[f"{key}_percentile{end}"]) for name, end in named.items()},
            "group": self._compare(key, profile),
            "scale": self._describe_scale(scale, profile, codes),
            "answers": [
                {**tell_answer(self.book.item(row["item"]), codes[row["item"]]), "moved": round(row["moved"], 3)}
                for row in own
                if abs(row["moved"]) >= LEAST_MOVE
            ][:MOST_ANSWERS],
        }

    def _describe_scale(self, scale: Scale, profile: Row, codes: Mapping[str, int]) -> Row:
        low, high = self.book.span_total(scale)
        return {
            "scale": scale.key,
            "label": scale.label or scale.key,
            "total": profile[f"{scale.key}_total"],
            "lowest": low,
            "highest": high,
            "positive": scale.positive,
            "band": profile[f"{scale.key}_band"],
            "answered": sum(codes[key] != MISSING for key in scale.items),
            "items": len(scale.items),
            "source": scale.source,
            "confirmed": self._find_confirmed(scale, profile[f"{scale.key}_total"]),
        }

    def _find_confirmed(self, scale: Scale, total: float | None) -> Row | None:
        """How often clinicians find people of this total to be at the cut; None where nobody knows."""
        told = self.book.feedback.confirmed if self.book.feedback else None
        found = self.calibration.get(round(total)) if told and told.scale == scale.key and total is not None else None
        if found is None:
            return None
        cases = self.book.list_cases(scale)  # from the lowest total on
        mildest = cases[0] if (scale.cut or "").startswith(">=") else cases[-1]
        return {"band": mildest, **{part: round(found[part], 3) for part in ("probability", "low", "high")}}

    def _compare(self, trait: str, profile: Row) -> Row | None:
        """Where the person stands among those who share the care file's cohorts; None where that cannot be told."""
        group: Group = tuple(profile[key] for key in self.care.compare)
        if not group or None in group or not profile["items_answered"]:
            return None
        if group not in self.groups:
            self.groups[group] = self._find_group(group)
        norms = self.groups[group]
        if norms is None:
            return None
        mean, half = profile[f"{trait}_mean"], NINETY_PERCENT * profile[f"{trait}_sd"]
        ranks = norms[trait].rank(mean, mean - half, mean + half)
        named = dict(zip(("percentile", "low", "high"), map(_round, ranks), strict=True))
        return {"cohorts": dict(zip(self.care.compare, group, strict=True)), **named}

    def _find_group(self, group: Group) -> dict[str, GroupNorms] | None:
        """Norms of each trait in the group, by its profiles of the night and their survey weights; None of too few.

        Of a large group the first people are taken: they lie in the order of their pseudonyms, which is a random one.
        """
        chosen = (ds.field("items_answered") > 0) & (ds.field("weight") > 0)
        for key, value in zip(self.care.compare, group, strict=True):
            chosen &= ds.field(key) == value
        traits = [trait.key for trait in self.model.spec.traits]
        columns = ["weight", *[f"{key}_{part}" for key in traits for part in ("mean", "sd")]]
        files = [str(file) for file in find_files(self.lake.root, self.manifest, "profiles")]
        people = ds.dataset(files, format="parquet").head(MOST_IN_GROUP, columns=columns, filter=chosen)
        if people.num_rows < FEWEST_IN_GROUP:
            return None
        weights = people["weight"].to_numpy()
        return {
            key: GroupNorms.of(people[f"{key}_mean"].to_numpy(), people[f"{key}_sd"].to_numpy(), weights)
            for key in traits
        }

    def _put_together(self, profile: Row, codes: Mapping[str, int], answered_at: Any, traits: list[Row]) -> Analysis:
        risk = [tell_answer(item, codes[item.key]) for item in self.book.items if item.risk]
        fit = profile["person_fit_percentile"]
        analysis: Analysis = {
            "person_id": profile[PERSON],
            "run_date": self.manifest["run_date"],
            "codebook": {"name": self.book.codebook, "version": self.book.version, "title": self.book.title},
            "model_version": profile["model_version"],
            "answered_at": answered_at.isoformat() if answered_at else None,
            "items_answered": profile["items_answered"],
            "items": len(self.book.items),
            "unusual_answers": _round(fit) if fit is not None and fit < UNUSUAL_FIT else None,
            "risk": [one for one in risk if one["answer"] is None or one["above_lowest"]],
            "help_lines": [line.model_dump() for line in self.care.help_lines],
            "traits": traits,
        }
        chosen = choose_advice(self.care.advice, self.book, profile, codes, traits)
        return {**analysis, "advice": [tell_advice(one) for one in chosen]}


def open_desk(lake: Lake, care: Path | None) -> Desk:
    """The last published night, whose people may be shown their own results.

    Raises UsageError under `statistics` and without a care file, StageError where no night is published or its people's
    tables or model have gone, and what `read_care` and `load_model` raise.
    """
    manifests = lake.manifests()
    if not manifests:
        raise StageError(f"no night of {lake.root} is published: run `mindcensus run` first")
    manifest = manifests[-1]
    book, _ = read_codebook(str(lake.restricted / "codebooks" / f"{manifest['codebook']['sha256']}.yaml"))
    require_care(book)
    check_kept(manifest)
    if care is None:
        raise UsageError("no help line is configured, and no page about a person is made without one: give --care FILE")
    told = read_care(care, book)
    folder, _ = find_inputs(lake, manifest, book)
    rows = [row for file in find_files(lake.root, manifest, "calibration") for row in pq.read_table(file).to_pylist()]
    return Desk(lake, manifest, book, told, load_model(folder), {row["total"]: row for row in rows})


def _round(percentile: float | None) -> float | None:
    return None if percentile is None else round(float(percentile), 1)
