"""Which earlier night's profiles tonight's may be kept from, and where each work item finds them.

Tonight's files hold everybody all the same: a reader takes a night's date from the folder of its files, and whoever
clears up takes a night's files from that folder, so no night names another's.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from jobs.job import Job
from jobs.lake import DataFile, Lake, StageRecord, hash_file
from jobs.machine import measure_machine
from jobs.provenance import hash_code
from jobs.work_items import Group, Stretch, WorkItem, join_groups, list_groups
from model.arithmetic import Arithmetic, describe_machine
from model.registry import INDEX

# Of an earlier night, for one work item: they are in a worker's memory at once.
MOST_ROWS = 1_500_000


class NothingKept(Exception):
    """Everybody is scored; the message says why."""


def describe_making(job: Job, model: Path, arithmetic: Arithmetic) -> dict[str, str]:
    """All that a profile follows from beside the answers: where one of them is another, no profile is kept."""
    return {
        "codebook": job.codebook_sha256,
        "pseudonym key": job.night.read("validate").details["key"],
        "model": hash_file(model / INDEX),  # which has the sha256 of the model's other files
        "code": hash_code(),
        "numbers": str(arithmetic),
        **describe_machine(arithmetic),
    }


def find_kept(job: Job, items: Sequence[WorkItem], made_with: Mapping[str, str]) -> list[WorkItem]:
    """The work items, each with what the last published night before tonight's has of its people.

    Raises NothingKept.
    """
    if job.rescore:
        raise NothingKept("it was asked for")
    manifest = job.lake.last_before(job.run_date)
    if manifest is None:
        raise NothingKept("no earlier night is published")
    if "retired" in manifest:
        raise NothingKept(f"people's tables of the night of {manifest['run_date']} were removed for their age")
    records = {stage: StageRecord.from_json(manifest["stages"][stage]) for stage in ("preprocess", "score")}
    features, profiles = records["preprocess"].tables["features"], records["score"].tables["profiles"]
    told = f"since the night of {manifest['run_date']}"
    before = records["score"].details.get("made_with", {})
    if changed := sorted(name for name in made_with if made_with[name] != before.get(name)):
        raise NothingKept(f"another {', '.join(changed)} {told}")
    check_files(job.lake, [*features, *profiles])
    return place_items(items, *([job.lake.root / file.path for file in files] for files in (features, profiles)))


def check_files(lake: Lake, files: Sequence[DataFile]) -> None:
    """Whole, not by their size alone: what is kept of a damaged file would be kept every night after.

    Raises NothingKept.
    """

    def is_whole(file: DataFile) -> bool:
        path = lake.root / file.path
        return path.is_file() and path.stat().st_size == file.size and hash_file(path) == file.sha256

    with ThreadPoolExecutor(measure_machine().cores) as threads:
        for file, whole in zip(files, threads.map(is_whole, files), strict=True):
            if not whole:
                raise NothingKept(f"{file.path} is missing or damaged")


def place_items(items: Sequence[WorkItem], features: Sequence[Path], profiles: Sequence[Path]) -> list[WorkItem]:
    """The items with the stretch of an earlier night in which their people's pseudonyms lie.

    Profiles have the people of their features in the same order. Raises NothingKept where a stretch would be too long:
    features lie in the order of their pseudonyms, so it is about as long as the item.
    """
    people, made = list(list_groups(features)), list(list_groups(profiles))
    if sum(group.rows for group in people) != sum(group.rows for group in made):
        raise NothingKept("the night before has not one profile for each person")
    files = dict.fromkeys(file for item in items for file, _ in item.pieces)
    own = {(group.file, group.number): group for group in list_groups([Path(file) for file in files])}
    return [
        _place_item(item, [own[file, number] for file, numbers in item.pieces for number in numbers], people, made)
        for item in items
    ]


def _place_item(item: WorkItem, own: Sequence[Group], people: Sequence[Group], made: Sequence[Group]) -> WorkItem:
    low, high = min((group.low for group in own), default=""), max((group.high for group in own), default="")
    near = [place for place, group in enumerate(people) if group.low <= high and group.high >= low]
    if not near:
        return item
    stretch = people[near[0] : near[-1] + 1]
    start, end = stretch[0].start, stretch[-1].end
    if end - start > MOST_ROWS:
        raise NothingKept("the night before has its people in another order")
    theirs = [group for group in made if group.end > start and group.start < end]
    return replace(item, earlier=Stretch(join_groups(stretch), join_groups(theirs), start - theirs[0].start))
