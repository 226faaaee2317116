"""A new key: every pseudonym follows it at once, deliveries go on to match, and the old one is refused."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.endings import read_view
from jobs import rewrite_people, rotate_key
from jobs.lake import Lake
from jobs.pseudonym import digest_ids, list_pseudonyms, read_key
from jobs.withdrawn import read_withdrawn
from tests.nights.test_withdraw import ACCEPTED, HELD, QUARANTINED, Ask, ask, describe, find_places, lake, published

__all__ = ["ask", "lake", "published"]  # fixtures
pytestmark = pytest.mark.usefixtures("own_logs")


def key_of(lake: Lake) -> bytes:
    return read_key(lake.restricted / "keys" / "pseudonym.key")


def test_every_pseudonym_follows_the_new_key(lake: Lake, ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("withdraw") == 0
    assert ask("export-person", ids=ACCEPTED) == 0
    before = {table: read_view(lake.root, "restricted", table) for table in HELD}
    (old,) = digest_ids([ACCEPTED.encode()], key_of(lake))
    blocked, name = len(read_withdrawn(lake)), lake.key_name()
    assert old
    for turn in range(2):  # a second new key is laid over the first
        assert ask("rotate-key", ids="") == 0
        (new,) = digest_ids([ACCEPTED.encode()], key_of(lake))
        assert new and new != old
        assert lake.key_name() != name
        for table in HELD:
            after = read_view(lake.root, "restricted", table)
            assert sorted(str(row[1:]) for row in after) == sorted(str(row[1:]) for row in before[table])
            assert not {row[0] for row in after} & {row[0] for row in before[table]}
        assert {row[0] for row in read_view(lake.root, "restricted", "features")} >= {new}
        assert new in read_withdrawn(lake) and len(read_withdrawn(lake)) == blocked
        # The log is a chain, and keeps the pseudonyms of its time.
        assert find_places(lake, old) == {"restricted/audit/log.jsonl"}
        capsys.readouterr()
        assert ask("export-person", ids=ACCEPTED) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["person_id"], len(told["access_log"]), len(told["nights"])) == (new, 3 + turn, 2)
    assert list_pseudonyms(ACCEPTED.encode(), key_of(lake))[0] == old
    assert ask("withdraw", "--erase") == 0
    people = [one for i in (ACCEPTED, QUARANTINED) for one in list_pseudonyms(i.encode(), key_of(lake))]
    assert {place.split("/")[1] for place in find_places(lake, *people)} == {"withdrawn", "audit"}


@pytest.mark.parametrize(("module", "name"), [(rotate_key, "put_in_force"), (rewrite_people, "write_catalog")])
def test_stopped_and_run_again_it_ends_the_same(
    lake: Lake, ask: Ask, monkeypatch: pytest.MonkeyPatch, module: object, name: str
) -> None:
    manifests = lake.manifests()
    with monkeypatch.context() as stopped:
        stopped.setattr(module, name, lambda *_: 1 / 0)
        assert ask("rotate-key", ids="") == 1
    prepared = (lake.restricted / "keys" / "next.key").read_bytes()
    assert (lake.manifests() == manifests) == (name == "put_in_force")
    assert ask("rotate-key", ids="") == 0
    assert key_of(lake) == prepared.strip()
    assert [path.name for path in (lake.restricted / "keys").iterdir()] == ["pseudonym.key"]
    ended = describe(lake)
    assert ask("export-person", ids=ACCEPTED) == 0
    assert describe(lake) == ended


def test_a_key_from_elsewhere_is_followed_by_a_file(
    lake: Lake, ask: Ask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    old, new = tmp_path / "old.key", tmp_path / "new.key"
    shutil.move(lake.restricted / "keys" / "pseudonym.key", old)

    def rotate(*options: object) -> tuple[int, str]:
        monkeypatch.setenv("MINDCENSUS_KEY_FILE", str(old))
        return ask("rotate-key", *options, ids=""), capsys.readouterr().err

    code, said = rotate()
    assert code == 2 and "--to FILE names the new key file" in said
    new.write_text("something else")
    new.chmod(0o600)
    code, said = rotate("--to", new)
    assert code == 2 and "is no new key laid over the lake's" in said
    new.unlink()
    assert rotate("--to", new)[0] == 0 and new.stat().st_mode & 0o777 == 0o600
    assert not (lake.restricted / "keys" / "pseudonym.key").exists()
    # The old key alone is a wrong one from now on, and nothing is done with it.
    before = describe(lake)
    assert ask("export-person", ids=ACCEPTED) == 2
    assert "the pseudonym key is not the one of the lake's last night" in capsys.readouterr().err
    monkeypatch.setenv("MINDCENSUS_KEY_FILE", str(new))
    assert ask("export-person", ids=ACCEPTED) == 0
    assert len(json.loads(capsys.readouterr().out)["nights"]) == 2
    assert describe(lake) == before
