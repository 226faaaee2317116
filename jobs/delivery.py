"""The marker that ends a delivery: `SHA256SUMS` in the extract's folder, as `sha256sum * > SHA256SUMS` writes it.

The deliverer writes it last, so that an extract which has one is whole. Without one an extract is taken as it is.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from expectations.errors import ContractBroken
from jobs.lake import hash_file, write_atomically

MARKER = "SHA256SUMS"
LINE = re.compile(r"(?P<sum>[0-9a-fA-F]{64}) [ *](?:\./)?(?P<name>.+)")


def write_marker(folder: Path) -> None:
    """Ends a delivery: the sums of all files that lie in the folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != MARKER)
    write_atomically(folder / MARKER, "".join(f"{hash_file(file)}  {file.name}\n" for file in files), 0o644)


def check_delivery(extract: Path, sums: Mapping[Path, str]) -> None:
    """Compares the files that are read, with their sha256, with what the extract's marker says of them.

    Raises ContractBroken where the marker cannot be read, a file that it names is not there, or one is not as it says.
    """
    marker = extract / MARKER
    if not marker.is_file():
        return
    promised = read_marker(marker)
    gone = [name for name in promised if not (extract / name).is_file()]
    if gone:
        raise ContractBroken(f"{MARKER} names {len(gone)} files that are not there, {gone[0]} for one: deliver them")
    for file, found in sums.items():
        name = file.relative_to(extract).as_posix()
        if name not in promised:
            raise ContractBroken(f"{name} is not in {MARKER}: was it put there after the delivery? Deliver it again")
        if promised[name] != found:
            raise ContractBroken(f"{name} is not as {MARKER} says: it was damaged or replaced; deliver it again")


def read_marker(marker: Path) -> dict[str, str]:
    """The sha256 of every file that a marker names, by its path in the folder. Raises ContractBroken."""
    promised = {}
    for number, line in enumerate(marker.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        found = LINE.fullmatch(line)
        if found is None:
            raise ContractBroken(
                f"{MARKER}, line {number}, is no line of sha256sum: write it by `sha256sum * > {MARKER}`"
            )
        promised[found["name"]] = found["sum"].lower()
    if not promised:
        raise ContractBroken(f"{MARKER} names no file: write it by `sha256sum * > {MARKER}`, last of all")
    return promised
