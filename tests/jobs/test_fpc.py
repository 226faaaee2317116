"""The column of the finite population correction: what it may hold, and how it is read."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expectations.errors import ContractBroken
from jobs.design import check_fpc, read_sampled


@pytest.mark.parametrize(
    ("strata", "message"),
    [
        ([("a", 2, 10.0, 12.0)], "column pop: stratum a has both 10 and 12"),
        ([("a", 2, 10.0, 10.0), ("b", 3, 2.0, 2.0)], "stratum b has 3 PSUs in the sample but 2 in the population"),
        ([("a", 2, 0.0, 0.0)], "stratum a has 2 PSUs in the sample but 0"),
        ([("a", 2, 10.0, 10.0), ("b", 2, 0.2, 0.2)], "stratum b has 2 PSUs in the sample but 0.2"),
        ([("a", 2, None, None)], "stratum a has no population of PSUs"),
    ],
)
def test_an_fpc_that_cannot_be(strata, message):
    with pytest.raises(ContractBroken, match=message):
        check_fpc("pop", strata)


@pytest.mark.parametrize(
    ("fpc", "expected"),
    [
        ([4.0, 4.0, 2.0], {"a": 0.5, "b": 0.5}),
        ([0.5, 0.5, 0.1], {"a": 0.5, "b": 0.1}),
        ([2.0, 2.0, 1.0], {"a": 1.0, "b": 1.0}),
        ([None, None, None], {}),
    ],
)
def test_numbers_of_psus_and_shares_of_them(tmp_path, fpc, expected):
    table = pa.table({"stratum": ["a", "a", "b"], "psu": ["1", "2", "3"], "fpc": pa.array(fpc, pa.float64())})
    pq.write_table(table, tmp_path / "design.parquet")
    assert read_sampled([tmp_path / "design.parquet"]) == expected
