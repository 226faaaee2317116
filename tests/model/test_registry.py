import json
import shutil

import pytest
import torch

from model.errors import ModelError
from model.registry import load_model, promotable, save_model

FILES = [
    "model.json",
    "norms.json",
    "reference.safetensors",
    "spec.json",
    "training_report.json",
    "weights.safetensors",
]


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained.folder, tmp_path / "copy")


def test_model_comes_back_as_it_was_saved(trained):
    model = load_model(trained.folder)
    assert model.model_version == "simulated-1"
    assert model.spec == trained.spec
    assert model.norms == trained.result.norms
    assert model.report == json.loads(json.dumps(trained.result.report))
    for name, tensor in trained.result.network.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], tensor)
    for name, tensor in trained.result.reference.state_dict().items():
        assert torch.equal(model.result.reference.state_dict()[name], tensor)


def test_folder_holds_plain_files_and_the_same_model_gives_the_same_bytes(trained, tmp_path):
    save_model(tmp_path / "again", trained.result, "simulated-1")
    assert sorted(path.name for path in trained.folder.iterdir()) == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["again"]
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (trained.folder / name).read_bytes()


def test_model_is_written_once(trained):
    with pytest.raises(ModelError, match="exists already"):
        save_model(trained.folder, trained.result, "simulated-2")


def test_leftovers_of_a_killed_save_do_not_matter(trained, tmp_path):
    (tmp_path / ".model.tmp").mkdir()
    (tmp_path / ".model.tmp" / "weights.safetensors").write_bytes(b"half")
    save_model(tmp_path / "model", trained.result, "simulated-1")
    assert load_model(tmp_path / "model").model_version == "simulated-1"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", FILES)
def test_damaged_file_is_named(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4] = b"\xff\x00\xff\x00"
    (copy / name).write_bytes(data)
    with pytest.raises(ModelError, match=f"{name} is damaged"):
        load_model(copy)


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(ModelError, match=f"{name} cannot be read"):
        load_model(copy)


def test_other_format_is_refused(copy):
    index = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps({**index, "format_version": 99}))
    with pytest.raises(ModelError, match="another format or architecture"):
        load_model(copy)


@pytest.mark.parametrize("residuals", [None, -1, "two", 2.5, True, "list"])
def test_unreadable_architecture_is_refused(copy, residuals):
    index = json.loads((copy / "model.json").read_text())
    index["architecture"] = {**index["architecture"], "residuals": residuals} if residuals != "list" else []
    (copy / "model.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="another format or architecture"):
        load_model(copy)


def test_weights_of_another_architecture_are_refused(copy):
    index = json.loads((copy / "model.json").read_text())
    index["architecture"]["residuals"] += 1
    (copy / "model.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="does not hold the weights"):
        load_model(copy)


@pytest.mark.parametrize(
    ("nats_per_answer", "reasons"),
    [
        (0.80, []),
        (0.90, ["no better than the items' margins alone (0.9000)"]),
        (0.91, ["no better than the items' margins alone (0.9000)"]),
        (float("nan"), ["not a number: nats_per_answer"]),
    ],
)
def test_a_model_must_be_better_than_the_margins(nats_per_answer, reasons):
    figures = {"bound": -9.0, "nats_per_answer": nats_per_answer, "margins_per_answer": 0.9}
    found = promotable({"validation": figures})
    assert len(found) == len(reasons)
    assert all(part in reason for part, reason in zip(reasons, found, strict=True))
