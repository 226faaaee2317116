"""The doctor on this machine, which is healthy, and on programs and folders that are not."""

import os
import re

import pytest

from jobs import doctor

JAVA_SETTINGS = "Property settings:\n    java.specification.version = {release}\n"


@pytest.fixture
def make_java(tmp_path):
    """Makes a program that answers as a Java of a release with these modules does."""

    def make(release: str, modules: str = "java.base@1\n", code: int = 0) -> str:
        program = tmp_path / "java"
        program.write_text(
            f"#!/bin/sh\nif [ \"$1\" = --list-modules ]; then echo '{modules}'; else\n"
            f"echo '{JAVA_SETTINGS.format(release=release)}' >&2; fi\nexit {code}\n"
        )
        program.chmod(0o755)
        return str(program)

    return make


def test_this_machine_can_run_a_night(tmp_path):
    findings = doctor.check_machine(tmp_path / "lake")
    assert [f.sentence for f in findings if not f.ok] == []
    names = [finding.name for finding in findings]
    assert names[:3] == ["python", "java", "torch"]
    assert set(doctor.CHECKED_PACKAGES) < set(names)
    assert names[-6:] == ["spark-submit", "spark", "arithmetic", "memory", "disk", "writing"]
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize(
    ("release", "modules", "ok", "sentence"),
    [
        ("17", "jdk.incubator.vector@17.0.1", True, "Java 17"),
        ("21", "jdk.incubator.vector@21", True, "Java 21"),
        ("11", "jdk.incubator.vector@11", False, "is Java 11: install Java 17 or 21"),
        ("1.8", "", False, "is Java 1.8: install Java 17 or 21"),
        ("25", "jdk.incubator.vector@25", False, "is Java 25: install Java 17 or 21"),
        ("17", "java.base@17", False, "lacks jdk.incubator.vector: install a full Java 17"),
    ],
)
def test_java_releases(make_java, release, modules, ok, sentence):
    found = doctor.check_java(make_java(release, modules))
    assert found.ok is ok
    assert sentence in found.sentence


def test_java_that_does_not_run(make_java, tmp_path):
    assert "does not run: install Java 17 or 21" in doctor.check_java(make_java("17", code=1)).sentence
    assert "does not run: install Java 17 or 21" in doctor.check_java(str(tmp_path / "none")).sentence


def test_no_java(monkeypatch, tmp_path):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.check_java() == doctor.Finding(
        "java", False, "no Java is found: install Java 17 or 21, or set JAVA_HOME"
    )


def test_packages():
    assert doctor.check_package("pytest", pytest.__version__).ok
    older = doctor.check_package("pytest", "1.0")
    assert older.sentence == f"pytest {pytest.__version__} is installed, 1.0 is wanted: run `make clean setup`"
    assert doctor.check_package("no-such-package", "1.0").sentence.endswith("is not installed: run `make setup`")


def test_any_build_of_the_torch_release_will_do():
    assert doctor.check_package("pytest", "9", lambda found: found.split(".")[0]).ok is pytest.__version__.startswith(
        "9"
    )
    assert doctor.check_torch().ok


def test_the_lock_names_every_checked_package_and_no_torch():
    lock = doctor.read_lock()
    assert set(doctor.CHECKED_PACKAGES) <= set(lock)
    assert "torch" not in lock
    assert not re.search(r"https?:|--(extra-)?index", doctor.LOCK.read_text())


def test_a_full_disk_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "DISK_GIB", 10**9)
    assert re.fullmatch(
        r"[\d.]+ GiB free at .*, a night takes 1000000000: free some space", doctor.check_disk(tmp_path).sentence
    )


def test_a_small_machine_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "MEMORY_GIB", 10**9)
    assert doctor.check_memory().sentence.endswith("use a larger machine")


def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o555)
    user = os.geteuid()
    try:
        if user == 0:  # who may write everywhere
            os.seteuid(65534)
        found = doctor.check_writing(tmp_path)
    finally:
        os.seteuid(user)
    assert found.sentence.startswith(f"{tmp_path} cannot be written (Permission denied): give this user the folder")


def test_nearest_folder(tmp_path):
    assert doctor.nearest_folder(tmp_path / "a" / "b") == tmp_path
    assert doctor.nearest_folder(tmp_path) == tmp_path
