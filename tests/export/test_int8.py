"""`manymask export --int8`: in 8 bits, measured on images, and kept only if the masks stay what they are."""

import json

import numpy as np
import pytest

from manymask.errors import InputError
from manymask.hub.model_folder import load_model
from manymask.metrics import overlap
from tests.factories import run

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from manymask.export import int8
from manymask.export.folder import graph_of
from manymask.export.sessions import session_of


@pytest.fixture
def few(monkeypatch):
    """Of the 24 phantoms two are for validation: here all are taken, the fewest that can be."""
    monkeypatch.setattr(int8, "CALIBRATING", 2)
    monkeypatch.setattr(int8, "LEAST_CHECKED", 4)
    monkeypatch.setattr(int8, "CHECKED", 4)


def folder_of(store, place):
    """Images and masks of a store as a plain folder."""
    from PIL import Image

    for name in ("images", "masks"):
        (place / name).mkdir(parents=True)
    for k in range(8):
        Image.fromarray(np.asarray(store.images[k, 0])).save(place / f"images/{k}.png")
        Image.fromarray(np.asarray(store.masks[k, 0] > 0).astype(np.uint8) * 255).save(place / f"masks/{k}.png")
    return place


def export(monkeypatch, model, engine, data, out, **changed):
    for name, value in changed.items():
        monkeypatch.setattr(int8, name, value)
    flags = ("--samples", 2, "--steps", 2, "--int8", "--data", data, "--out", out)
    return run(monkeypatch, "export", model, "--to", engine, *flags)


def test_onnx_graph_has_8_bits_and_states_what_they_change(few, store, drawing_model, tmp_path, monkeypatch, capsys):
    import onnx

    data = folder_of(store, tmp_path / "mine")
    assert export(monkeypatch, drawing_model, "onnx", data, tmp_path / "made", MOST_DICE_CHANGE=1.0) == 0
    graph = onnx.load(tmp_path / "made/model.onnx").graph
    assert [node.op_type for node in graph.node].count("QuantizeLinear") > 20
    weights = {each.name: each for each in graph.initializer if each.name.endswith("weight_quantized")}
    assert len(weights) > 20 and all(each.data_type == onnx.TensorProto.INT8 for each in weights.values())
    facts = json.loads((tmp_path / "made/export.json").read_text())
    assert facts["parity"]["max_abs_difference"] <= 1e-3
    found = facts["int8"]
    assert (found["images"], found["calibrated_on"], found["failed"]) == (4, 2, [])
    assert 0 < found["dice"] < 1 and found["time_ratio"] > 0
    assert found["megabytes"] == pytest.approx((tmp_path / "made/model.onnx").stat().st_size / 1e6)
    assert f"Dice {found['full_dice']:.4f} → {found['dice']:.4f} on 4 images" in capsys.readouterr().out
    assert {file.name for file in (tmp_path / "made").iterdir()} == {
        "model.onnx",
        "export.json",
        "runner.py",
        "LICENSE",
    }


def test_openvino_graph_has_8_bits(few, store, drawing_model, tmp_path, monkeypatch):
    pytest.importorskip("nncf")
    data = folder_of(store, tmp_path / "mine")
    assert export(monkeypatch, drawing_model, "openvino", data, tmp_path / "made", MOST_DICE_CHANGE=1.0) == 0
    assert (tmp_path / "made/model.xml").read_text().count('type="FakeQuantize"') > 10
    found = json.loads((tmp_path / "made/export.json").read_text())["int8"]
    assert 0 < found["dice"] < 1 and found["images"] == 4


def test_dice_that_changes_is_not_shipped_and_says_so(few, store, drawing_model, tmp_path, monkeypatch, capsys):
    data = folder_of(store, tmp_path / "mine")
    assert export(monkeypatch, drawing_model, "onnx", data, tmp_path / "made", MOST_DICE_CHANGE=-1.0) != 0
    said = capsys.readouterr().err
    assert (
        "not shipped" in said and "all convolutions: Dice 0." in said and "denoiser and mask decoder: Dice 0." in said
    )
    assert not (tmp_path / "made").exists()


def test_dice_is_that_of_the_consensus_on_images_that_did_not_calibrate(few, store, drawing_model):
    trained = load_model(drawing_model)
    given = int8.examples(graph_of(trained, None, 2), store, list(store.ids)[:6])
    assert len(given) == 6
    truths = [given[1].truth, np.zeros_like(given[1].truth)]

    def session(inputs):
        return [None, truths[0][None].astype(float)]

    drawn = [int8.Example({}, truth) for truth in truths]
    assert int8._drawn(session, drawn)[0] == pytest.approx((1.0 + overlap(truths[0], truths[1])[0]) / 2)


def test_too_few_images_are_refused(store, drawing_model):
    with pytest.raises(InputError, match="at least 16 images"):
        int8.examples(graph_of(load_model(drawing_model), None, 2), store, list(store.ids)[:15])


def test_noise_is_that_of_segment(few, store, drawing_model, tmp_path):
    from manymask.export.convert import write_onnx
    from manymask.export.graph import example

    trained = load_model(drawing_model)
    graph = graph_of(trained, None, 3)
    given = int8.examples(graph, store, list(store.ids)[:6])[0]
    path = tmp_path / "model.onnx"
    write_onnx(graph, example(graph, 1, 64), graph.outputs, path)
    expected = trained.segmenter.sample_all(store.batch([store.ids[0]]), 3, 0)
    assert np.abs(session_of(path)(given.inputs)[0] - expected.numpy()).max() < 1e-3


def test_flags_that_belong_together(drawing_model, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "export", drawing_model, "--to", "onnx", "--int8", "--out", tmp_path / "made") != 0
    assert "--data" in capsys.readouterr().err
