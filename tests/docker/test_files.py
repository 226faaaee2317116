"""The files of docker/: as hadolint, the compose specification and our own rules want them."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
COMPOSE = PROJECT / "docker" / "compose.yaml"
ONCE = ("migrate", "pools")
SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]


def run(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_hadolint_finds_nothing():
    run("hadolint", *sorted((PROJECT / "docker").glob("*.Dockerfile")))


def test_the_compose_file_is_one_by_its_specification():
    run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_shut_in(name):
    service = SERVICES[name]
    assert service["user"].split(":")[0].isdigit() and not service["user"].startswith("0")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[a-z/]+:\d+\.\d+[\w.-]*", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in ONCE])
def test_every_service_has_a_health_check_and_one_that_works_is_restarted(name):
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES[name].get("deploy", {}).get("replicas", 1) == (2 if name == "spark-worker" else 1)


def test_secrets_come_by_file_alone():
    declared = yaml.safe_load(COMPOSE.read_text())["secrets"]
    assert {secret["file"] for secret in declared.values()} == {f"secrets/{name}" for name in declared}
    used = {secret for service in SERVICES.values() for secret in service.get("secrets", ())}
    assert used == set(declared)
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|_KEY|SQL_ALCHEMY", name):
                assert name.endswith(("_CMD", "_FILE")), name
                assert "/run/secrets" in str(value) or name.endswith("PASSWORDS_FILE"), name


def test_the_pool_that_tasks_take_their_turn_in():
    assert json.loads((PROJECT / "docker" / "pools.json").read_text())["lake"]["slots"] == 1
    assert SERVICES["scheduler"]["environment"]["MINDCENSUS_POOL"] == "lake"
