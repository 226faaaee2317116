"""The marker that ends a delivery, as sha256sum writes it and as the command reads it."""

import subprocess

import pytest

from expectations.errors import ContractBroken
from jobs.delivery import MARKER, check_delivery, write_marker
from jobs.lake import hash_file


@pytest.fixture
def extract(tmp_path):
    for name, text in (("people-0.csv", "id\n1\n"), ("people 1.csv", "id\n2\n"), ("README", "what this is\n")):
        (tmp_path / name).write_text(text)
    return tmp_path


def check(extract):
    check_delivery(extract, {file: hash_file(file) for file in sorted(extract.glob("*.csv"))})


def test_a_delivery_without_a_marker_is_taken_as_it_is(extract):
    check(extract)


def test_our_marker_is_sha256sums_own(extract):
    write_marker(extract)
    check(extract)
    ours = (extract / MARKER).read_text()
    subprocess.run(["sha256sum", "--check", "--quiet", MARKER], cwd=extract, check=True)
    (extract / MARKER).unlink()
    subprocess.run(f"sha256sum ./* > .{MARKER} && mv .{MARKER} {MARKER}", shell=True, cwd=extract, check=True)
    check(extract)
    theirs = (extract / MARKER).read_text().replace(" ./", " ")
    assert sorted(ours.splitlines()) == sorted(theirs.splitlines())


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda folder: (folder / "people-0.csv").write_text("id\n9\n"), "people-0.csv is not as SHA256SUMS says"),
        (lambda folder: (folder / "README").unlink(), "SHA256SUMS names 1 files that are not there, README for one"),
        (lambda folder: (folder / "people-2.csv").write_text("id\n"), "people-2.csv is not in SHA256SUMS"),
        (lambda folder: (folder / MARKER).write_text(""), "SHA256SUMS names no file"),
        (lambda folder: (folder / MARKER).write_text("people-0.csv\n"), "SHA256SUMS, line 1, is no line of sha256sum"),
    ],
)
def test_a_delivery_that_is_not_as_promised(extract, harm, sentence):
    write_marker(extract)
    harm(extract)
    with pytest.raises(ContractBroken, match=sentence):
        check(extract)
