"""`mindcensus withdraw`: nothing of some people comes into any table any more; with `--erase`, nothing of them stays.

Erased are their rows in people's tables of every published night, superseded ones too, and what was explained of them;
every model that was made since the first night that held them is retired and removed, since later models went on from
earlier ones, so that the next training begins from nothing. Models that no published night tells of (refused, left
unfinished, of nights that were given up) go whoever withdraws, since nobody knows who was in these. Estimates and sums
of cells stay as they are, in the restricted zone as in the public one: made anew, the difference would tell of these
people alone. Only internal cells that have nobody but them go. A notice to the deliverer is written first. What stays
of a person is the pseudonym in the block list and in the access log.
"""

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs.amendments import Amendment, read_amendments
from jobs.analyses import remove_analyses
from jobs.audit import check_reason, log_access
from jobs.lake import PEOPLE_TABLES, DataFile, Lake, write_atomically
from jobs.lone_cells import CELLS, leave_out_cells
from jobs.rewrite_people import Change, list_files, put_in_force, rewrite_files
from jobs.withdrawn import FOLDER, block_people, find_people

NOTICE = """\
Notice of withdrawal

{people:,} people whose answers you delivered have withdrawn, and were erased here. Please leave them out of every
delivery from now on, erase them from your own copies where the law that you are under wants it, and tell whoever you
passed their answers on to.

This notice names nobody, and no delivered id is kept here: the ids come with the request that was made to whoever sends
you this. Their rows were in these deliveries:

"""


@dataclass(frozen=True)
class Withdrawal:
    """What was done: people who were put on the list, those of them of whom rows were found, and what was erased.

    `unknown` may be people who were never accepted, or whose first delivery is still to come: they are blocked, too.
    """

    people: int
    known: int
    nights: int = 0
    rows: int = 0
    models: tuple[str, ...] = ()
    notice: str | None = None

    @property
    def unknown(self) -> int:
        return self.people - self.known


@dataclass
class Plan:
    """What is about to be erased: the nights' new tables, and the people and rows that were found in each delivery."""

    nights: dict[int, Amendment] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    rows: int = 0
    deliveries: dict[str, int] = field(default_factory=dict)  # in words, with the rows of these people
    first_night: str | None = None


def withdraw(lake: Lake, people: Sequence[str], reason: str | None, *, erase: bool) -> Withdrawal:
    """`people` are sorted pseudonyms. The lake has to be held.

    Raises UsageError without a reason, AuditBroken where the access log is damaged; nothing has changed then.
    """
    log_access(lake, "withdraw --erase" if erase else "withdraw", people, check_reason(reason))
    block_people(lake, people)
    remove_analyses(lake, people)
    if not erase:
        files = [file for m in lake.issued() for table in list_files(m, PEOPLE_TABLES).values() for file in table]
        return Withdrawal(len(people), len(find_people(lake, files, people)))
    plan = plan_erasure(lake, people)
    models = find_learned(lake, plan.first_night)
    for unfinished in (lake.restricted / "models").glob(".*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    notice = write_notice(lake, plan) if plan.known else None
    before = read_amendments(lake.restricted)
    retired = dict.fromkeys(models, datetime.now(UTC).date().isoformat())
    put_in_force(lake, replace(before, nights={**before.nights, **plan.nights}, models={**retired, **before.models}))
    return Withdrawal(len(people), len(plan.known), len(plan.nights), plan.rows, tuple(models), notice)


def plan_erasure(lake: Lake, people: Sequence[str]) -> Plan:
    """Writes the new files of every table in which one of the people has a row; none of them is in force yet."""
    plan, before = Plan(), read_amendments(lake.restricted).nights
    for manifest in lake.issued():
        tables = list_files(manifest, PEOPLE_TABLES)
        held = {name: [f for f in files if find_people(lake, [f], people)] for name, files in tables.items()}
        if not any(held.values()):
            continue
        made = _leave_out(lake, manifest, held, people)
        lost = {name: _count(held.get(name, ())) - _count(made.get(name, {}).values()) for name in PEOPLE_TABLES}
        now = {
            name: [vars(made[name].get(file, file)) for file in files]
            for name, files in list_files(manifest, (*PEOPLE_TABLES, *CELLS)).items()
        }
        earlier = before.get(manifest["token"], Amendment({}))
        accepted, quarantined = earlier.accepted + lost["accepted"], earlier.quarantined + lost["quarantine"]
        plan.nights[manifest["token"]] = Amendment({**earlier.tables, **now}, accepted, quarantined)
        plan.known.update(find_people(lake, [file for files in held.values() for file in files], people))
        plan.rows += sum(lost.values())
        plan.first_night = min(plan.first_night or manifest["run_date"], manifest["run_date"])
        plan.deliveries[_name_delivery(manifest)] = lost["accepted"] + lost["quarantine"]
    return plan


def _leave_out(
    lake: Lake, manifest: Mapping[str, Any], held: Mapping[str, list[DataFile]], people: Sequence[str]
) -> dict[str, dict[DataFile, DataFile]]:
    """For each table of a night the new file for each old one: of those that hold the people, and of cells."""
    gone = pa.array(people, pa.string())

    def leave_out(table: pa.Table) -> pa.Table:
        return table.filter(pc.invert(pc.is_in(table["person_id"], value_set=gone)))

    members = _read_members(lake, held.get("features", ()), people)
    cells = list_files(manifest, CELLS)
    changes: dict[str, Change] = dict.fromkeys(held, leave_out)
    changes |= dict.fromkeys(cells, partial(leave_out_cells, people=members))
    return {
        name: dict(zip(files, rewrite_files(lake, manifest, name, files, changes[name]), strict=True))
        for name, files in {**held, **cells}.items()
    }


def _count(files: Iterable[DataFile]) -> int:
    return sum(file.rows for file in files)


def _read_members(lake: Lake, features: Sequence[DataFile], people: Sequence[str]) -> list[dict[str, Any]]:
    """These people's rows of features: of which cells they are."""
    if not features:
        return []
    table = ds.dataset([str(lake.root / file.path) for file in features], format="parquet")
    rows: list[dict[str, Any]] = table.to_table(filter=ds.field("person_id").isin(people)).to_pylist()
    return rows


def _name_delivery(manifest: Mapping[str, Any]) -> str:
    files = manifest["stages"]["validate"]["details"]["files"]
    names = "; ".join(f"{file['name']}, {file['size']:,} bytes, sha256 {file['sha256']}" for file in files)
    return f"{manifest['codebook']['name']}, judged for {manifest['run_date']}: {names}"


def find_learned(lake: Lake, first_night: str | None) -> list[str]:
    """The models that may have learned from them: a version begins with the date of its night.

    Those that were made on the first night that held them, or later; where older nights' people have been removed for
    their age, all, for nobody knows whether they were in these; and those that no published night tells of.
    """
    issued = lake.issued()
    aged = any("retired" in m and (first_night is None or m["run_date"] < first_night) for m in issued)
    trained = [m["stages"]["train"]["details"] for m in issued]
    told = {one["model_version"] for one in (*trained, *(m.get("refused") or {} for m in trained)) if one}
    folders = (lake.restricted / "models").glob("[0-9]*-[0-9a-f]*")

    def may_know(version: str) -> bool:
        return aged or version not in told or (first_night is not None and version[:10] >= first_night)

    return sorted(folder.name for folder in folders if may_know(folder.name))


def write_notice(lake: Lake, plan: Plan) -> str:
    """The notice to the deliverer, under a name made of what it says; returns its path in the lake."""
    lines = [f"- {name}\n  {rows:,} rows of theirs" for name, rows in sorted(plan.deliveries.items())]
    content = NOTICE.format(people=len(plan.known)) + "\n".join(lines) + "\n"
    folder = lake.restricted / FOLDER / "notices"
    folder.mkdir(mode=0o700, exist_ok=True)
    file = folder / f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.txt"
    write_atomically(file, content)
    return str(file.relative_to(lake.root))
