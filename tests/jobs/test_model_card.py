import json
import math
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from expectations.codebook import Codebook, read_codebook
from jobs.card_fairness import show_fairness
from jobs.card_membership import show_privacy
from jobs.card_parts import Measurements, Pictures, Table
from jobs.model_card import DESIGN, MEMBERSHIP, find_differences, tell_fairness, write_card
from jobs.model_spec import build_spec
from model.inputs import read_labels, read_sample
from model.membership import Attack
from model.network import ProfileNetwork
from model.norms import Norms
from model.registry import Model
from model.reliability import DataSummary
from model.training import TrainingResult
from tests.model.simulation import simulate

PEOPLE = 2000


def fair(group: str, measure: str, figure: float, low: float | None, high: float | None) -> dict[str, Any]:
    place = {"group": group, "measure": measure, "people": 150, "df": 24}
    return {**place, "figure": figure, "se": 0.01, "low": low, "high": high}


GATE = {
    "reasons": [],
    "measures": {
        "coverage": [{"level": "all", "answers": 900, "covered": 0.912, "se": 0.0101}],
        "ranks": {"depression": 0.0123},
        "link": {"errors": {"depression": 0.01}, "drifted": {"depression": ["phq9_3"]}, "anchors": {"depression": 8}},
        "comparisons": [
            {"group": "all", "people": 200, "difference": 0.0031, "se": 0.002, "p": 0.98},
            {"group": "sex=female", "people": 150, "difference": -0.0007, "se": 0.003, "p": 0.99},
        ],
        "fairness": [
            fair("all", "coverage", 0.905, 0.88, 0.93),
            fair("sex=men", "coverage", 0.8525, 0.81, 0.895),
            fair("all", "phq9_expected", 0.02, -0.1, 0.14),
            fair("sex=men", "phq9_expected", -0.31, None, None),
        ],
        "fairness_growth": [
            {"group": "sex=men", "measure": "coverage", "growth": 0.0123, "margin": 0.03, "se": 0.01, "p": 0.9}
        ],
    },
}
VOID = {"meta", "br", "link", "img", "input", "hr"}


@pytest.fixture(scope="module")
def book() -> Codebook:
    """Two traits, one of a scale where higher is better, and a cohort with a group too small to be shown."""
    book = read_codebook("demo_population")[0]
    scales = tuple(scale for scale in book.scales if scale.key in ("phq9", "who5"))
    keys = {key for scale in scales for key in scale.items}
    return book.model_copy(
        update={
            "items": tuple(item for item in book.items if item.key in keys),
            "scales": scales,
            "traits": tuple(trait for trait in book.traits if trait.scale in ("phq9", "who5")),
            "cohorts": tuple(cohort for cohort in book.cohorts if cohort.key == "sex"),
        }
    )


@pytest.fixture(scope="module")
def features(book: Codebook, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    spec = build_spec(book)
    codes, _ = simulate(spec, PEOPLE)
    rare, often = book.cohorts[0].groups[0], book.cohorts[0].groups[1]
    table = pa.table(
        {
            "person_id": [f"pseudonym{number:06d}" for number in range(PEOPLE)],
            **{key: codes[:, place] for place, key in enumerate(spec.columns)},
            "sex": [rare if number % 50 == 0 else often for number in range(PEOPLE)],
            "weight": np.random.default_rng(1).uniform(0.5, 2, PEOPLE),
            "stratum": [f"s{number % 5}" for number in range(PEOPLE)],
            "psu": [f"s{number % 5}:{number // 5 % 6}" for number in range(PEOPLE)],
            "fold": (np.arange(PEOPLE) % 10).astype(np.int8),
        }
    )
    folder = tmp_path_factory.mktemp("features")
    paths = [folder / "a.parquet", folder / "b.parquet"]
    for path, part in zip(paths, (table.slice(0, 700), table.slice(700)), strict=True):
        pq.write_table(part, path)
    return paths


def covariate(key: str, kind: str, people_by_level: dict[str, int], slopes: list[list[float]]) -> dict[str, Any]:
    costs = {"cost": 2.0, "margin_cost": 2.123} if slopes else {"cost": None, "margin_cost": None}
    people = 1800 if slopes else 3
    return {
        "key": key, "kind": kind, "people": people, "people_by_level": people_by_level, "slopes": slopes, **costs
    }  # fmt: skip


@pytest.fixture(scope="module")
def model(book: Codebook) -> Model:
    torch.manual_seed(2)
    network = ProfileNetwork(build_spec(book), residuals=2).requires_grad_(False)
    report = {
        "settings": {"weight_column": "weight"},
        "rows": {"training": 1800, "validation": 200},
        "residuals": {"chosen": 2, "nats_per_answer": {"0": 1.5, "2": 1.4}},
        "files": [],
        "link": None,
        "covariates": [
            covariate("age", "count", {}, [[0.1, math.log(3.21)]]),
            covariate("income_log", "continuous", {}, [[-0.27, 0.1]]),
            covariate("urban", "binary", {"0": 900, "1": 900}, [[math.log(6.54), 0.0]]),
            covariate("region", "nominal", {"north": 900, "east": 49, "south": 851}, [[0.7, 0.7], [math.log(7.89), 0]]),
            covariate("household_size", "count", {}, []),
        ],
        "torch": torch.__version__,
    }
    return Model("model-1", TrainingResult(network, network.without_covariates(), Norms({}, {}, []), report))


@pytest.fixture(scope="module")
def card(model: Model, book: Codebook, features: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    write_card(folder, model, book, features, GATE)
    return folder


class Outline(HTMLParser):
    """Checks that tags are closed in order; gathers ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", ["card.md", "card.html"])
def test_both_forms_say_what_matters(card, book, name):
    page = (card / name).read_text()
    for trait in book.traits:
        assert trait.label in page
    for words in ("Limits of use", "screening aid and no diagnosis", "Coverage of 90 % intervals", "Omega",
                  "Trait correlations", "Threshold 3", "above 2", "Residual share", "model-1"):  # fmt: skip
        assert words in page, words
    assert "nan" not in re.findall(r"\b\w+\b", page)


@pytest.mark.parametrize("name", ["card.md", "card.html"])
def test_nothing_of_one_person_and_no_small_group(card, book, name):
    page = (card / name).read_text()
    assert "pseudonym" not in page and "person_id" not in page
    rare = book.cohorts[0].read_group(book.cohorts[0].groups[0])
    assert re.search(rf"{rare}\W.*fewer than 50.*withheld", page)


def test_covariates_are_told_in_the_measure_of_their_kind(card):
    page = (card / "card.md").read_text()
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in page.splitlines() if line.startswith("| ")}
    assert re.search(r"1,800 \| 1\.11 \| 3\.21 \| 0\.123", rows["age in years: ratio of expected counts"])
    assert re.search(r"−0\.27 \| 0\.10", rows["logarithm of yearly household income: sds"])
    assert "6.54" in rows["lives in a town or city: odds ratio of 1 against 0"]
    assert "7.89" in rows["region: odds ratio of south against north"]
    # Of 49 people, and of 3, nothing is told.
    assert re.search(r"fewer than 50 \| withheld \| withheld", rows["region: odds ratio of east against north"])
    assert re.search(r"fewer than 50( \| withheld){3}", rows["people in the household: ratio of expected counts"])


def test_the_folder_holds_the_three_files_alone(card):
    assert sorted(path.name for path in card.iterdir()) == ["card.html", "card.md", "fairness.json"]


def test_the_page_is_sound_and_stands_alone(card, book):
    page = (card / "card.html").read_text()
    outline = Outline()
    outline.feed(page)
    assert not outline.open and len(outline.ids) == len(set(outline.ids))
    assert "<script" not in page and "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", page).replace("http-equiv", "")
    assert page.count("<svg") >= len(book.items) + 7  # a picture an item, and those of traits and cohorts


def test_markdown_tables_have_cells_for_every_column(card):
    for table in re.findall(r"(?:^\|.*\n)+", (card / "card.md").read_text(), flags=re.M):
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(counts) == 1 and len(table.splitlines()) >= 3


def test_the_same_model_and_features_give_the_same_bytes(card, model, book, features, tmp_path):
    write_card(tmp_path, model, book, features[::-1], GATE)
    for name in ("card.md", "card.html"):
        assert (tmp_path / name).read_bytes() == (card / name).read_bytes()


@pytest.mark.parametrize("name", ["demo_population", "nhanes_2017_2018"])
def test_no_cohort_and_no_covariate_is_an_input_of_the_encoder(name):
    book = read_codebook(name)[0]
    network = ProfileNetwork(build_spec(book))
    assert network.spec.columns == tuple(item.key for item in book.items)
    assert network.encoder[0].in_features == sum(len(item.levels) + 1 for item in book.items)
    assert {item.column for item in book.items}.isdisjoint(part.column for part in (*book.cohorts, *book.covariates))


def test_fairness_is_told_by_cohort_and_by_item(card, book):
    text = (card / "card.md").read_text()
    sex, men = book.cohorts[0].label, book.cohorts[0].read_group("men")
    assert f"| {sex}: {men} | 150 | 85.2 | 81.0 to 89.5 |" in text
    assert "PHQ-9 depression score: bias of the expected total, in points." in text
    assert f"| {sex}: {men} | 150 | −0.31 | none |" in text
    assert "further off by 0.012 of 0.030" in text
    # One of fifty is in the rarer group: too few to be compared.
    assert "No item could be tested" in text
    told = json.loads((card / "fairness.json").read_text())
    assert told["cohorts"] == GATE["measures"]["fairness"]
    assert {item["reason"] for item in told["items"]} == {"too few people"}
    assert len(told["items"]) == len(book.items)


def test_an_item_that_a_cohort_answers_otherwise_is_named_and_drawn(model, book, features):
    """Half of the people are women, and half of those say of the first item one more than they would."""
    people = read_sample(features, model.spec, "weight", PEOPLE)
    women = np.random.default_rng(1).uniform(size=PEOPLE) < 0.5
    moved = women & (people.codes[:, 0] >= 0) & (np.arange(PEOPLE) % 2 == 0)
    people.codes[moved, 0] = np.minimum(people.codes[moved, 0] + 1, 3)
    labels = {**read_labels(features, DESIGN, PEOPLE), "sex": np.where(women, "women", "men").tolist()}
    found = find_differences(model.network, people, labels)
    data = DataSummary(PEOPLE, PEOPLE, PEOPLE, {}, 1.0)
    measured = Measurements(
        book, model.spec, "model-1", model.report, GATE, None, 0, data, [], 0.0, [], [], [], [], np.eye(2), found
    )
    section = show_fairness(measured)
    rows = [row for block in section.blocks if isinstance(block, Table) for row in block.rows]
    [flagged] = [row for row in rows if row[-1] == "large"]
    assert re.fullmatch(r"phq9_1: interest or pleasure \(Sex: \w+ beside \w+\)", flagged[0])
    titles = [part.title for block in section.blocks if isinstance(block, Pictures) for part in block.pictures]
    assert "phq9_1: interest or pleasure, by Sex: expected score" in titles
    [told] = [item for item in json.loads(tell_fairness(measured))["items"] if item["verdict"]]
    assert (told["item"], told["verdict"], told["purified"], len(told["groups"])) == ("phq9_1", "large", True, 2)


def test_a_linked_model_names_its_linking_error(model, book, features, tmp_path):
    link = {"errors": {trait.key: 0.0123 for trait in book.traits}, "drifted": {}, "anchors": {}}
    linked = replace(model, result=replace(model.result, report={**model.report, "link": link}))
    write_card(tmp_path, linked, book, features, {**GATE, "series": "2031-01-01-first"})
    text = (tmp_path / "card.md").read_text()
    assert "Linking error: Depression 0.012 sd" in text and "reference population (series 2031-01-01-first)" in text


def test_a_series_that_had_to_start_says_why(model, book, features, tmp_path):
    lost = ["only 3 of 9 items of trait depression behave as before"]
    write_card(tmp_path, model, book, features, {**GATE, "series": "2031-01-01-new", "link_lost": lost})
    text = (tmp_path / "card.md").read_text()
    assert "the reference (series 2031-01-01-new)" in text and f"no figures of both compare: {lost[0]}." in text


def test_the_usual_model_of_each_scale_stands_beside_margins(card):
    rows = [line.split("|") for line in (card / "card.md").read_text().splitlines() if line.startswith("| ")]
    costs = {row[1].split(":")[0].strip(): float(row[2]) for row in rows if re.fullmatch(r" \d\.\d{3} ", row[2])}
    [alone] = [cost for name, cost in costs.items() if name.startswith("A graded response model of each scale")]
    assert costs["Items' margins"] - 0.2 < alone < costs["Items' margins"] - 0.1


def test_membership_is_told_where_it_was_measured(card, features, model, book, tmp_path):
    assert "Not measured: `mindcensus measure-membership`" in (card / "card.md").read_text()
    found = Attack(65, 4964, 0.5012, 0.4901, 0.0111, 0.0144, 0.0123, 0.0136, 0.0102, 0.4)
    (tmp_path / MEMBERSHIP).write_text(json.dumps(asdict(found)))
    write_card(tmp_path, model, book, features, GATE)
    text = (tmp_path / "card.md").read_text()
    assert "4,964 people" in text and "| Advantage | 0.0111 | 0.0144 |" in text and "| 1.23 % | 1.36 % |" in text


def test_a_private_training_says_what_it_cost(card, model, book):
    assert "Noise multiplier" not in (card / "card.md").read_text()
    cost = {"epsilon": 3.0, "delta": 1e-6, "clip": 4.0, "weight": 45000.0}
    how = {"noise_multiplier": 2.4121, "sample_rate": 0.1, "steps": 200}
    report = {**model.report, "privacy": cost | how}
    measured = Measurements(
        book,
        model.spec,
        "model-1",
        report,
        {},
        None,
        0,
        DataSummary(1, 1, 1, {}, 1.0),
        [],
        0.0,
        [],
        [],
        [],
        [],
        np.eye(2),
        [],
    )
    [table] = [block for block in show_privacy(measured).blocks if isinstance(block, Table)]
    assert [row[1] for row in table.rows] == ["3", "1e-06", "4", "45000", "2.412", "0.1", "200"]


def test_gate_is_told_in_words_and_figures(card, features, model, book, tmp_path):
    text = (card / "card.md").read_text()
    assert "The model passed." in text and "91.2 %" in text and "| Depression | 0.012 |" in text
    assert "| Sex: " in text and f"{chr(8722)}0.0007" in text and "phq9_3" in text
    write_card(tmp_path, model, book, features, {**GATE, "reasons": ["its unit is lost"]})
    assert "The model fell short: its unit is lost." in (tmp_path / "card.md").read_text()
    write_card(tmp_path, model, book, features, {})
    assert "Whether it may come into force" not in (tmp_path / "card.md").read_text()
