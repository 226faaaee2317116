"""The operator's pages name every exit code, class of error, metric and alert that there is."""

import ast
import re
from pathlib import Path

import pytest

from jobs import errors

PROJECT = Path(__file__).resolve().parents[2]
ERRORS = (PROJECT / "docs" / "errors.md").read_text()
RUNBOOK = (PROJECT / "docs" / "operations.md").read_text().split("## Alerts: a runbook\n")[1].split("\n## ")[0]


def list_error_classes() -> list[str]:
    """Every class of the rooms that comes from an exception, directly or by another of them."""
    bases: dict[str, set[str]] = {}
    for file in (file for room in ("expectations", "model", "jobs", "dags") for file in (PROJECT / room).glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {base.id for base in node.bases if isinstance(base, ast.Name)}
    found = {"Exception", "ValueError", "RuntimeError", "OSError"}
    while more := {name for name, above in bases.items() if above & found} - found:
        found |= more
    return sorted(found & set(bases))


def list_exit_codes() -> list[int]:
    return sorted({value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)})


def test_there_are_error_classes_to_look_for():
    assert {"UsageError", "LeaseLost", "LinkError", "ContractBroken"} <= set(list_error_classes())
    assert list_exit_codes()[:8] == list(range(8))


@pytest.mark.parametrize("name", list_error_classes())
def test_every_class_of_error_is_explained(name):
    assert f"`{name}`" in ERRORS


def test_every_exit_code_is_explained_once():
    rows = [line.split("|")[1] for line in ERRORS.splitlines() if re.match(r"\| [\d, ]+ \|", line)]
    assert sorted(int(code) for row in rows for code in row.split(",")) == list_exit_codes()


def test_an_error_has_the_code_that_its_page_says():
    for line in ERRORS.splitlines():
        if match := re.match(r"\| (\d) \| [^|]+ \| ([^|]+) \|", line):
            for name in re.findall(r"`(\w+)`", match[2]):
                module = errors if hasattr(errors, name) else __import__("model.errors", fromlist=[name])
                assert errors.exit_code(getattr(module, name)("words")) == int(match[1]), name


@pytest.mark.parametrize("alert", re.findall(r"^### (.+)$", RUNBOOK, re.M))
def test_every_alert_says_what_it_means_how_to_look_what_to_do_and_whom_to_call(alert):
    text = RUNBOOK.split(f"### {alert}\n")[1].split("\n#")[0]
    order = [text.find(f"*{word}") for word in ("Means:", "Look:", "Do:")]
    assert order == sorted(order) and -1 not in order, alert
    assert re.search(r"\*[Cc]all", text), alert


def test_every_exit_code_of_a_stage_that_waits_for_people_has_an_alert():
    for code in range(1, 8):
        assert f"exit code {code}" in RUNBOOK
    assert "ends with 10" in RUNBOOK and "status 12" in RUNBOOK
