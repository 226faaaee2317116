"""Complementary suppression: no redacted cell may follow from its neighbours and a total (see `jobs.sums`)."""

from collections import defaultdict
from collections.abc import Callable, Sequence, Set

from jobs.sums import Audit, Line, Room


def hide_neighbours(
    lines: Sequence[Line],
    sizes: Sequence[int],
    secret: set[int],
    hidden: set[int],
    is_small: Callable[[list[int]], bool],
    rooms: Sequence[Room],
    width: float = 1,
    known: Set[int] = frozenset(),
) -> set[int]:
    """The further cells to hide, so that no secret follows from what is still shown.

    `hidden` are the cells without a figure: the secret ones, and others that are merely not shown. A line gives a
    secret away where it is the only hidden cell, or where the hidden parts together are small (`is_small`); it then
    loses its next smallest cell, until no line does. What still follows from all lines together and from the labels
    (`rooms` has what that of each cell leaves open, were it hidden) is found by an audit, which hides the cells with
    the fewest people that keep it from following: a secret must stay `width` people wide. Cells that are `known` from
    elsewhere neither hide others nor can be hidden.
    """
    secret, hidden = secret - known, hidden - known
    gone, guarded, added = set(hidden), set(secret), set[int]()
    lines_of_total, lines_of_cell = defaultdict[int, list[int]](list), defaultdict[int, list[int]](list)
    for k, line in enumerate(lines):
        lines_of_total[line.total].append(k)
        for i in (line.total, *line.parts):
            lines_of_cell[i].append(k)
    audit = Audit(lines, sizes, rooms, dict.fromkeys(secret, width), known)
    unchecked = set(range(len(lines)))

    def tells(line: Line) -> bool:
        missing = [i for i in line.parts if i in gone]
        shown = line.total < len(sizes) and line.total not in gone
        total_known = shown or any(gone.isdisjoint(lines[k].parts) for k in lines_of_total[line.total])
        alone = len(missing) == 1 if total_known else not missing and line.total in guarded
        together = total_known and missing and is_small(missing)
        return bool((alone or together) and guarded.intersection((line.total, *missing)))

    def cover_telling_line() -> set[int]:
        for k in sorted(unchecked):
            if tells(lines[k]) and (smallest := _smallest_cell(lines[k], sizes, gone | known)) is not None:
                return {smallest}
            unchecked.discard(k)
        return set()

    while cover := cover_telling_line() or audit.find_cover(gone, guarded):
        for cells in (gone, guarded, added):
            cells.update(cover)
        unchecked.update(k for i in cover for j in lines_of_cell[i] for k in lines_of_total[lines[j].total])
    return added


def _smallest_cell(line: Line, sizes: Sequence[int], gone: Set[int]) -> int | None:
    """The cell with the fewest people in a line that can be hidden; an empty one hides nothing."""
    shown = [i for i in (line.total, *line.parts) if i < len(sizes) and i not in gone and sizes[i]]
    return min(shown, key=lambda i: (sizes[i], i), default=None)
