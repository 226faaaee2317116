"""Network namespaces: reached by an address of their own, cut off and joined again, and gone whatever happened."""

import signal
import socket
import subprocess
import sys
from contextlib import suppress

import pytest

from benchmarks.namespaces import Network, find_obstacle, make_network
from benchmarks.spark_cluster import wait_until

obstacle = find_obstacle()
pytestmark = pytest.mark.skipif(obstacle is not None, reason=f"no network namespaces here: {obstacle}")
PORT = 8000
SERVE = f"import socket; s = socket.create_server(('', {PORT}))\nwhile True: s.accept()[0].close()"
KILLED = "import os; from benchmarks.namespaces import *\nwith make_network(['a']) as n: print(n.number); os._exit(9)"


def answers(network: Network, name: str) -> bool:
    with suppress(OSError), socket.create_connection((network.address(name), PORT), timeout=0.5):
        return True
    return False


def list_made(network: Network) -> str:
    """What `ip` still knows of a network."""
    commands = (["ip", "netns", "list"], ["ip", "-brief", "link"])
    told = "\n".join(subprocess.run(command, capture_output=True, text=True).stdout for command in commands)
    made = tuple(f"mcens{network.number}{end}" for end in "- v")
    return "\n".join(line for line in told.splitlines() if line.startswith(made))


def test_a_namespace_is_cut_off_and_joined_again() -> None:
    with make_network(["one", "other"]) as network:
        process = subprocess.Popen([*network.enter("one"), sys.executable, "-c", SERVE])
        wait_until(lambda: answers(network, "one"), "it answers", 30)
        assert network.pids("one") == [process.pid] and network.pids("other") == []
        network.cut("one")
        assert not answers(network, "one")
        network.join("one")
        wait_until(lambda: answers(network, "one"), "it answers again", 30)
        network.kill("one")
        assert process.wait(10) == -signal.SIGKILL
    assert list_made(network) == ""


def test_nothing_is_left_after_a_failure() -> None:
    with pytest.raises(ZeroDivisionError), make_network(["one"]) as network:
        process = subprocess.Popen([*network.enter("one"), "sleep", "600"])
        wait_until(lambda: network.pids("one") == [process.pid], "it has entered", 30)
        raise ZeroDivisionError
    assert process.wait(10) == -signal.SIGKILL
    assert list_made(network) == ""


def test_what_a_killed_maker_left_is_taken_away_by_the_next() -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True)
    left = Network(int(killed.stdout), ("a",))
    assert list_made(left) != ""
    with make_network(["a"]):
        pass
    assert list_made(left) == ""
