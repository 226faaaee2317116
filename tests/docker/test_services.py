"""The compose file as processes: what an unset variable becomes, and where Spark's workers live."""

import pytest

import stack_services
from stack_services import Place, read_services


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "15" / "bin").mkdir(parents=True)  # PostgreSQL need not be here
    monkeypatch.setattr(stack_services, "POSTGRES_PROGRAMS", f"{tmp_path}/*/bin")
    ports = {name: 1024 + number for number, name in enumerate(("api", "postgres", "master", "worker-1", "worker-2"))}
    return Place(tmp_path, tmp_path / "lake", tmp_path / "landing", ports)


def test_a_variable_that_nobody_sets_is_empty(place, monkeypatch):
    monkeypatch.delenv("CATCH_UP_FROM", raising=False)
    services = {service.name: service for service in read_services(place)}
    assert services["scheduler"].environment["MINDCENSUS_CATCH_UP_FROM"] == ""
    assert not [value for service in services.values() for value in service.environment.values() if value == "None"]


def test_workers_in_namespaces(place):
    machines = (("first", "10.0.0.2"), ("second", "10.0.0.3"))
    moved = Place(place.folder, place.lake, place.landing, place.ports, "10.0.0.1", machines)
    services = {service.name: service for service in read_services(moved)}
    for number, (namespace, address) in enumerate(machines, 1):
        worker = services[f"spark-worker-{number}"]
        assert worker.command[:2] == worker.health[:2] == ("nsenter", f"--net=/run/netns/{namespace}")
        assert worker.command[-3:] == ("--host", address, f"spark://10.0.0.1:{place.ports['master']}")
        assert worker.environment["SPARK_LOCAL_IP"] == address
        assert f"{address}:{place.ports[f'worker-{number}']}" in worker.health
    assert services["scheduler"].environment["SPARK_LOCAL_IP"] == "10.0.0.1"
