import pyarrow as pa

from jobs.lone_cells import leave_out_cells

#        breakdown   sex      region    stratum  psu   n    stays without two men of North in p1 and one woman of South
TABLE = """
         all         -        -         s        p1    3    True
         all         -        -         s        p1    2    False
         sex         men      -         s        p1    2    False
         sex         men      -         s        p1    3    True
         sex         men      -         s        p2    1    True
         sex         women    -         s        p2    1    False
         sex         women    -         s        p2    0    True
         sex*region  women    South     s        p2    1    False
         sex*region  women    North     s        p2    1    True
         sex*region  men      North     s        p1    -    True
"""
NAMES = ("breakdown", "sex", "region", "stratum", "psu", "n")
MAN = {"sex": "men", "region": "North", "stratum": "s", "psu": "p1"}
PEOPLE = [MAN, MAN, {"sex": "women", "region": "South", "stratum": "s", "psu": "p2"}]


def test_cells_of_these_people_alone_go() -> None:
    rows = [[None if word == "-" else word for word in line.split()] for line in TABLE.strip().splitlines()]
    cells = [{**dict(zip(NAMES, row, strict=False)), "n": int(row[5]) if row[5] else None} for row in rows]
    stays = [row[6] == "True" for row in rows]
    table = pa.Table.from_pylist(cells)
    assert leave_out_cells(table, PEOPLE).to_pylist() == [c for c, stay in zip(cells, stays, strict=True) if stay]
    assert leave_out_cells(table, []).equals(table)
    # Without PSUs the same people make a cell wherever they live.
    whole = table.drop_columns(["stratum", "psu"])
    assert [row["n"] for row in leave_out_cells(whole, PEOPLE).to_pylist()] == [3, 0, 1, None]
