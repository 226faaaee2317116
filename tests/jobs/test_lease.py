"""The lease: one holder at a time, taken from the dead at once and from the silent after a while, and fenced."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.errors import LakeHeld, LeaseLost
from jobs.lake import Lake
from jobs.lease import SECONDS, Holder, Lease, find_newest, name_lease, read_holder

LONG_AGO = time.time() - 3600
WAITS = """
import sys
from pathlib import Path
from jobs.lake import Lake
from jobs.errors import LeaseLost
lake = Lake(Path(sys.argv[1]))
with lake.hold():
    print("held", flush=True)
    sys.stdin.readline()
    try:
        lake.open_night(__import__("datetime").date(2026, 1, 1))
        print("opened")
    except LeaseLost as error:
        print(error)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lake = Lake(tmp_path / "lake")
    lake.prepare()
    return lake.restricted / "leases"


@contextmanager
def holding(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the lake until it is given a line, and then tries to open a night."""
    command = [sys.executable, "-c", WAITS, str(folder.parents[1])]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield other
    finally:
        other.kill()
        other.communicate()


def leave_behind(folder: Path, holder: Holder, renewed: float) -> None:
    file = name_lease(folder, find_newest(folder) + 1)
    file.write_text(json.dumps(vars(holder)))
    os.utime(file, (renewed, renewed))


def test_tokens_rise_over_holders(folder: Path) -> None:
    for token in (1, 2, 3):
        lease = Lease.take(folder)
        assert lease.token == token
        lease.let_go()
    assert [file.name for file in folder.iterdir()] == ["00000003.json"]
    assert read_holder(folder) is None


def test_whoever_is_refused_is_told_who_holds_it(folder: Path) -> None:
    with holding(folder) as other:
        with pytest.raises(LakeHeld, match=rf"holds the lake {folder.parents[1]} \(process {other.pid} on .*wait"):
            Lease.take(folder)
        assert find_newest(folder) == 1
        holder = read_holder(folder)
        assert holder and holder.pid == other.pid


def test_a_dead_holder_is_seen_at_once_and_a_reused_process_id_is_not_taken_for_it(folder: Path) -> None:
    leave_behind(folder, replace(Holder.of_this_process(), started="1"), time.time())
    lease = Lease.take(folder)
    assert lease.token == 2
    lease.let_go()


@pytest.mark.parametrize(("seconds", "free"), [(-3600, True), (3600, True), (0, False)])
def test_a_holder_elsewhere_is_waited_for_as_long_as_it_renews(folder: Path, seconds: int, free: bool) -> None:
    elsewhere = replace(Holder.of_this_process(), machine="another", host="elsewhere", pid=1)
    leave_behind(folder, elsewhere, time.time() + seconds)
    if free:
        Lease.take(folder).let_go()
    else:
        with pytest.raises(LakeHeld, match="process 1 on elsewhere"):
            Lease.take(folder)


def test_a_lease_is_renewed(folder: Path) -> None:
    lease = Lease.take(folder, seconds=0.12)
    file = name_lease(folder, lease.token)
    os.utime(file, (LONG_AGO, LONG_AGO))
    deadline = time.monotonic() + 20
    while file.stat().st_mtime < LONG_AGO + 60 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert time.time() - file.stat().st_mtime < SECONDS
    lease.let_go()


def test_a_holder_that_was_stopped_wakes_up_and_changes_nothing(folder: Path) -> None:
    with holding(folder) as other:
        other.send_signal(signal.SIGSTOP)
        os.utime(name_lease(folder, 1), (LONG_AGO, LONG_AGO))
        lease = Lease.take(folder)
        other.send_signal(signal.SIGCONT)
        said, _ = other.communicate("go on\n", timeout=60)
        assert "another one took the lake" in said
        lease.check()
        lease.let_go()
    assert not list((folder.parent / "staging").iterdir())
    assert not [path for path in folder.iterdir() if path.name != "00000002.json"]


def test_of_many_who_try_at_once_one_holds_it(folder: Path) -> None:
    """Twenty rounds of eight threads: as many leases as rounds, each with a token of its own."""
    for token in range(1, 21):
        ready, taken, refused = threading.Barrier(8), list[Lease](), list[LakeHeld]()

        def contend(ready=ready, taken=taken, refused=refused) -> None:
            ready.wait()
            try:
                taken.append(Lease.take(folder))
            except LakeHeld as error:
                refused.append(error)

        threads = [threading.Thread(target=contend) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ([lease.token for lease in taken], len(refused)) == ([token], 7)
        taken[0].let_go()


def test_a_lost_lease_is_told_as_long_as_it_is_held(folder: Path) -> None:
    lease = Lease.take(folder)
    os.utime(name_lease(folder, 1), (LONG_AGO, LONG_AGO))
    later = Lease.take(folder)
    with pytest.raises(LeaseLost, match="given up"):
        lease.check()
    lease.let_go()
    later.check()
    later.let_go()
