"""What a cluster's Spark is told: sizes follow from the cores, and whatever was given stays."""

import logging

import pytest

from jobs.cluster import PROJECT, QUIET, cluster_settings, find_own_address, is_cluster

SAFE = {"spark.authenticate": "true", "spark.network.crypto.enabled": "true"}
MASTER = "spark://127.0.0.1:7077"


@pytest.mark.parametrize(
    ("master", "cluster"),
    [
        ("local", False),
        ("local[4]", False),
        ("local[*,2]", False),
        ("local-cluster[2,1,1024]", True),
        ("spark://master:7077", True),
        ("yarn", True),
        ("k8s://https://master:443", True),
    ],
)
def test_masters(master: str, cluster: bool) -> None:
    assert is_cluster(master) is cluster


def test_sizes_follow_from_the_cores_and_the_address_from_the_master() -> None:
    told = cluster_settings(MASTER, {**SAFE, "spark.executor.cores": "4", "spark.executor.instances": "3"})
    assert told["spark.executor.memory"] == "4710m"
    assert told["spark.cores.max"] == "12"
    assert told["spark.driver.host"] == "127.0.0.1"
    assert told["spark.executorEnv.PYTHONPATH"] == str(PROJECT)
    assert "spark.cores.max" not in cluster_settings(MASTER, SAFE), "all that there are"
    assert "spark.driver.host" not in cluster_settings("yarn", SAFE)


def test_what_was_given_stays() -> None:
    given = {"spark.executor.memory": "1g", "spark.driver.host": "driver", "spark.task.maxFailures": "9"}
    told = cluster_settings(MASTER, {**SAFE, **given})
    assert not set(given) & set(told)
    told = cluster_settings(MASTER, {**SAFE, "spark.executor.extraJavaOptions": "-Xss4m"})
    assert told["spark.executor.extraJavaOptions"] == f"-Xss4m {QUIET}"
    assert (PROJECT / "jobs" / "templates" / QUIET.rpartition("/")[2]).is_file()


def test_a_cluster_without_encryption_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        cluster_settings(MASTER, SAFE)
        assert caplog.text == ""
        cluster_settings(MASTER, {"spark.authenticate": "true"})
    assert "in the clear" in caplog.text


def test_of_several_masters_the_first_tells_the_address() -> None:
    assert find_own_address("spark://127.0.0.1:7077,other:7077") == "127.0.0.1"
