"""Machines that are none: network namespaces on a bridge, each with an address of its own, that can be cut off.

What is on the bridge reaches this machine, and nothing else. Made by `ip` of iproute2, as root.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

NAME = "mcens"  # what follows is the network's number, which is also a part of its addresses
SUBNET = "10.213"
NETWORKS = 250
HERE, FIRST = 1, 2  # last parts of addresses: this machine's, the first namespace's
GONE_SECONDS = 20.0


class NamespaceError(Exception):
    """This machine cannot make namespaces: the message says what is missing."""


@dataclass(frozen=True)
class Network:
    """A bridge and its namespaces, by the names that they were asked for."""

    number: int
    names: tuple[str, ...]

    @property
    def here(self) -> str:
        """This machine's address on the bridge."""
        return f"{SUBNET}.{self.number}.{HERE}"

    def address(self, name: str) -> str:
        return f"{SUBNET}.{self.number}.{FIRST + self.names.index(name)}"

    def namespace(self, name: str) -> str:
        return f"{self._bridge}-{name}"

    def enter(self, name: str) -> list[str]:
        """What comes before a command that is to run there; its process is the command's own."""
        return ["nsenter", f"--net=/run/netns/{self.namespace(name)}"]

    def pids(self, name: str) -> list[int]:
        """All processes there."""
        found = subprocess.run(["ip", "netns", "pids", self.namespace(name)], capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def cut(self, name: str) -> None:
        """Pulls the plug: packets are lost both ways, connections are not told."""
        _ip("link", "set", self._plug(name), "down")

    def join(self, name: str) -> None:
        _ip("link", "set", self._plug(name), "up")

    def kill(self, name: str) -> None:
        """Ends every process there, as a loss of power would."""
        deadline = time.monotonic() + GONE_SECONDS
        while (pids := self.pids(name)) and time.monotonic() < deadline:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def make(self) -> None:
        _ip("addr", "add", f"{self.here}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for name in self.names:
            inside = ["-n", self.namespace(name)]
            _ip("netns", "add", self.namespace(name))
            _ip("link", "add", self._plug(name), "type", "veth", "peer", "eth0", "netns", self.namespace(name))
            _ip("link", "set", self._plug(name), "master", self._bridge, "up")
            _ip(*inside, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
            for link in ("eth0", "lo"):
                _ip(*inside, "link", "set", link, "up")

    def remove(self) -> None:
        """Ends all that runs there, and takes everything away that was made, however far that came."""
        for namespace in _list_namespaces(f"{self._bridge}-"):
            self.kill(namespace.removeprefix(f"{self._bridge}-"))
            _ip("netns", "delete", namespace)
        # A connection that nobody closes keeps a namespace alive for minutes, without a name: its cable goes at once.
        for plug in _list_links(f"{self._bridge}v"):
            with suppress(NamespaceError):  # the namespace took it along
                _ip("link", "delete", plug)
        _ip("link", "delete", self._bridge)

    @property
    def _bridge(self) -> str:
        return f"{NAME}{self.number}"

    def _plug(self, name: str) -> str:
        """This machine's end of the namespace's cable; a link's name has fifteen letters at most."""
        return f"{self._bridge}v{self.names.index(name)}"


@contextmanager
def make_network(names: Sequence[str]) -> Iterator[Network]:
    """Namespaces of these names while the block runs. Raises NamespaceError where this machine cannot make them."""
    if obstacle := find_obstacle():
        raise NamespaceError(obstacle)
    remove_abandoned()
    network = Network(_take_number(), tuple(names))
    try:
        network.make()
        yield network
    finally:
        network.remove()


def find_obstacle() -> str | None:
    """What this machine lacks for namespaces, in a sentence; None where nothing is missing."""
    for program, package in (("ip", "iproute2"), ("nsenter", "util-linux")):
        if shutil.which(program) is None:
            return f"the program {program} is missing: install it (Debian: apt-get install {package})"
    if os.geteuid() != 0:
        return "network namespaces are made by root alone: run this as root"
    probe = f"{NAME}-{os.getpid()}"
    try:
        _ip("netns", "add", probe)
        _ip("link", "add", probe, "type", "bridge")
    except NamespaceError as error:
        return f"{error}: the kernel, or the container, must allow network namespaces and bridges (CAP_SYS_ADMIN)"
    finally:
        for what in ("link", "netns"):
            with suppress(NamespaceError):
                _ip(what, "delete", probe)
    return None


def remove_abandoned() -> None:
    """Takes away the networks whose makers were killed before they could."""
    for link in _list_bridges():
        owner = link.get("ifalias", "")
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            Network(int(link["ifname"].removeprefix(NAME)), ()).remove()


def _take_number() -> int:
    """The first that is free: of two who make the same bridge, one fails."""
    for number in range(1, NETWORKS):
        with suppress(NamespaceError):
            _ip("link", "add", f"{NAME}{number}", "type", "bridge")
            _ip("link", "set", f"{NAME}{number}", "alias", str(os.getpid()))
            return number
    raise NamespaceError(f"all {NETWORKS} bridges {NAME}1, {NAME}2, ... are taken: delete those that nobody uses")


def _list_bridges() -> list[dict[str, str]]:
    links: list[dict[str, str]] = json.loads(_ip("-json", "link", "show", "type", "bridge") or "[]")
    return [link for link in links if link.get("ifname", "").removeprefix(NAME).isdigit()]


def _list_links(prefix: str) -> list[str]:
    links: list[dict[str, str]] = json.loads(_ip("-json", "link", "show"))
    return [link["ifname"] for link in links if link["ifname"].startswith(prefix)]


def _list_namespaces(prefix: str) -> list[str]:
    return [line.split()[0] for line in _ip("netns", "list").splitlines() if line.startswith(prefix)]


def _ip(*arguments: str) -> str:
    ended = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if ended.returncode:
        raise NamespaceError(f"`ip {' '.join(arguments)}` failed ({ended.stderr.strip()})")
    return ended.stdout
