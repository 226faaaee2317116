"""The operator's page: made of manifests and notes alone, self-contained, the same bytes twice, and not public."""

import re
from datetime import date

import pytest

from expectations.errors import ContractBroken
from jobs.lake import Lake
from jobs.night_charts import draw_nights, word_figure
from jobs.night_page import write_night_page
from tests.jobs.test_status import attempt, publish


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Lake:
    lake = Lake(tmp_path_factory.mktemp("page") / "lake")
    lake.prepare()
    publish(lake, "2026-03-01")
    publish(lake, "2026-03-02", drift=0.31, warnings=("answer_shares",))
    attempt(lake, "2026-03-03", ContractBroken("column <age> is missing"))
    attempt(lake, "2026-03-03")
    write_night_page(lake)
    return lake


def read_page(lake: Lake) -> str:
    return (lake.restricted / "nights.html").read_text()


def test_the_page_lies_in_the_restricted_zone_and_is_the_same_twice(lake):
    page = read_page(lake)
    assert oct((lake.restricted / "nights.html").stat().st_mode)[-3:] == "600"
    write_night_page(lake)
    assert read_page(lake) == page
    assert not list(lake.public.rglob("*.html"))


def test_it_loads_nothing_and_has_a_picture_of_everything(lake):
    page = read_page(lake)
    assert not re.search(r"<script|<link|<img|\bsrc=|url\((?!#)", page)
    assert [url for url in re.findall(r"https?://[^\"' <)]+", page) if "w3.org" not in url] == []
    told = re.findall(r'role="img" aria-label="([^,"]+), ([^,]+), a bar a night|role="img" aria-label="([^,"]+)', page)
    titles = [first or third for first, _, third in told]
    wanted = ["all stages but publish", "validate", "delivered", "features", "quarantined", "duplicates", "ineligible"]
    assert titles == [*wanted, "withdrawn", "answers", "profiles"]
    assert page.count('<svg class="chart"') == len(titles)


def test_it_tells_of_the_last_night_and_of_what_failed(lake):
    text = " ".join(re.sub(r"<[^>]+>", " ", read_page(lake)).split())
    for words in (
        "The last one is 2026-03-02",
        "It stayed internal: too soon; a release is next possible on 2026-03-08.",
        "2026-03-02 9,876,543 9,000,000 543 (age_range 543) 0.31 / – 2026-03-01-87d139846466 internal warned: answer",
        "last 0.31, from 0.31 to 0.31; limit 0.25",
        "3 column &lt;age&gt; is missing",
    ):
        assert words in text, text


def test_nights_past_the_limit_stand_out_and_those_without_a_value_have_no_bar():
    svg = draw_nights([0.1, None, 0.3], ["2026-03-01", "2026-03-02", "2026-03-03"], "n", limit=0.25)
    assert (svg.count('fill="#0b5cad"'), svg.count('fill="#c2500a"')) == (1, 1)
    assert "2026-03-02" not in svg
    assert draw_nights([None], [str(date(2026, 3, 1))], "n")


@pytest.mark.parametrize(
    ("value", "word"), [(0, "0"), (0.094, "0.094"), (8.6, "8.6"), (414.2, "414"), (9_932, "9.93k"), (1_000_682, "1M")]
)
def test_figures_are_short(value, word):
    assert word_figure(value) == word
