"""What is shipped is what was scored."""

from manymask.evaluate import Protocol, evaluate
from manymask.files.atomic import read_json
from manymask.hub import load_model
from manymask.licences import LICENCES, licence
from manymask.publish import publish


def test_published_model_gives_its_own_figures_again(trained_run, store, tmp_path):
    metrics = publish(trained_run, store.folder, tmp_path / "model", tmp_path / "results", seeds=2)
    shipped = load_model(tmp_path / "model")
    ids = store.part(None, "test")
    again = evaluate(shipped.model, store, ids, Protocol(), progress=False).metrics
    assert again["dice"]["mean"] == metrics["segmenter"][0]["metrics"]["dice"]["mean"]
    assert len(metrics["segmenter"]) == 2 and set(metrics) == {"segmenter", "mask-codec", "image-codec"}
    kept = read_json(tmp_path / "model" / "metrics.json")
    assert kept["segmenter"][0]["metrics"] == metrics["segmenter"][0]["metrics"]
    assert (tmp_path / "model" / "LICENSE").read_text() == licence("phantom").text
    assert "## Measured on test" in (tmp_path / "model" / "README.md").read_text()
    assert (tmp_path / "results" / "mask-codec" / "results.json").exists()
    assert (tmp_path / "results" / "figure.png").exists()


def test_pictures_of_data_that_may_not_be_shown_are_not_drawn(trained_run, store, tmp_path, monkeypatch):
    monkeypatch.setitem(LICENCES, "phantom", licence("cvc_clinicdb"))
    publish(trained_run, store.folder, tmp_path / "model", tmp_path / "results")
    assert not list((tmp_path / "results").rglob("*.png"))
    assert "No commercial use" in (tmp_path / "model" / "LICENSE").read_text()
