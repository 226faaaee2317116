"""Pseudonyms: the key's file, and the HMAC that Spark's workers compute."""

import hmac
import logging
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs.errors import UsageError
from jobs.lake import Lake
from jobs.pseudonym import digest_ids, extend_key, key_file, list_pseudonyms, pseudonymise, split_key


@pytest.fixture(autouse=True)
def no_key_in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINDCENSUS_KEY", raising=False)
    monkeypatch.delenv("MINDCENSUS_KEY_FILE", raising=False)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake")
    lake.prepare()
    return lake


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_first_use_makes_a_key_once_and_says_so(lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        path = key_file(lake)
    assert path == lake.restricted / "keys" / "pseudonym.key"
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    key = path.read_text().strip()
    assert len(bytes.fromhex(key)) == 32
    assert "made a new pseudonym key" in caplog.text and key not in caplog.text
    assert key_file(lake).read_text().strip() == key
    assert [file.name for file in path.parent.iterdir()] == ["pseudonym.key"]


def test_key_of_the_environment_is_written_for_the_workers(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("the first key of the test", "the second key of the test"):
        monkeypatch.setenv("MINDCENSUS_KEY", key)
        path = key_file(lake)
        assert (path.read_text().strip(), mode(path)) == (key, 0o600)
        assert path.parent == lake.restricted / "keys"


def test_named_key_file_is_used_where_it_is(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "site.key"
    path.write_text("a key\n")
    path.chmod(0o600)
    monkeypatch.setenv("MINDCENSUS_KEY_FILE", str(path))
    monkeypatch.setenv("MINDCENSUS_KEY", "not this one")
    assert key_file(lake) == path
    assert not (lake.restricted / "keys").exists()


@pytest.mark.parametrize(
    ("content", "file_mode", "message"),
    [
        (None, 0, "no such file"),
        ("a key", 0o644, "0644, open to other users"),
        ("a key", 0o700, "has mode 0700: run `chmod 600`"),
        (" \n", 0o600, "is empty"),
        ("mindcensus key chain\n\nnew\n", 0o600, "is empty"),
        ("mindcensus key chain\n", 0o600, "is empty"),
    ],
)
def test_unfit_key_files(
    content: str | None, file_mode: int, message: str, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "site.key"
    if content is not None:
        path.write_text(content)
        path.chmod(file_mode)
    monkeypatch.setenv("MINDCENSUS_KEY_FILE", str(path))
    with pytest.raises(UsageError, match=message):
        key_file(lake)


def test_digest_is_hmac_sha256() -> None:
    # RFC 4231, test case 2.
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert digest_ids([b"what do ya want for nothing?"], b"Jefe") == [expected]


def test_a_new_key_is_laid_over_those_before_it() -> None:
    chain = extend_key(extend_key(b"first", "second").encode(), "third").encode()
    assert split_key(chain) == [b"first", b"second", b"third"]
    told = list_pseudonyms(b" 1001 ", chain)
    assert told == [digest_ids([b"1001"], key)[0] for key in (b"first", extend_key(b"first", "second").encode(), chain)]
    assert told[2] == hmac.new(b"third", told[1].encode(), "sha256").hexdigest()
    assert digest_ids([None, b" "], chain) == [None, None] and list_pseudonyms(b" ", chain) == []
    # A key of several lines that is no chain stays the key that it was.
    assert split_key(b"-----\nabc\n-----") == [b"-----\nabc\n-----"]


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1))
def test_blanks_around_an_id_do_not_count(text: str) -> None:
    plain, padded = digest_ids([text.encode(), f" \t{text}\n".encode()], b"key")
    assert plain == padded == hmac.new(b"key", text.encode(), "sha256").hexdigest()


def test_spark_computes_the_same_and_the_plan_has_no_key(lake: Lake, spark: SparkSession) -> None:
    path = key_file(lake)
    ids = ["1001", " 1001 ", "Ångström-7", "", "  ", None]
    frame = spark.createDataFrame([(i,) for i in ids], "id string").select(
        pseudonymise(F.col("id"), path).alias("p"), pseudonymise(F.lit("1001"), path).alias("q")
    )
    rows = frame.collect()
    assert [row.p for row in rows] == digest_ids([i.encode() if i else None for i in ids], path.read_bytes().strip())
    assert rows[0].p == rows[1].p and {row.q for row in rows} == {rows[0].p}
    assert [row.p for row in rows[3:]] == [None, None, None]
    assert path.read_text().strip() not in frame._jdf.queryExecution().toString()


def test_another_key_gives_other_pseudonyms(lake: Lake, spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    for key in ("the first key", "the second key"):
        monkeypatch.setenv("MINDCENSUS_KEY", key)
        frame = spark.range(1).select(pseudonymise(F.lit("1001"), key_file(lake)).alias("p"))
        seen.add(frame.collect()[0].p)
    assert len(seen) == 2


def test_undecodable_ids_do_not_reach_an_exception(lake: Lake, spark: SparkSession) -> None:
    frame = spark.sql("SELECT CAST(X'31FF32' AS STRING) AS id").select(
        pseudonymise(F.col("id"), key_file(lake)).alias("p")
    )
    assert len(frame.collect()[0].p) == 64
