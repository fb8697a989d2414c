"""A page of models that mark different things asks which one an image wants, and draws with none before."""

from types import SimpleNamespace

import pytest

from manymask.inference.segmenter import Segmenter
from manymask.serving.examples import first_model
from manymask.serving.service import WINDOWS, Limits
from manymask.serving.session import SessionManager

REQUEST = SimpleNamespace(session_hash="a", client=SimpleNamespace(host="127.0.0.1"))


def of(*datasets):
    return {f"{k}": SimpleNamespace(recipe=SimpleNamespace(dataset=dataset)) for k, dataset in enumerate(datasets)}


def test_models_of_one_thing_begin_with_the_first_and_those_of_several_with_none():
    assert first_model(of("isic2018")) == first_model(of("cvc_clinicdb", "polyps")) == "0"
    assert first_model(of("cvc_clinicdb", "isic2018")) is None


def test_image_is_shown_but_not_drawn_until_a_model_is_chosen(drawing_model, tmp_path, lesion):
    gr = pytest.importorskip("gradio", reason="the extra `app` is not installed")
    from manymask.serving.events import Events

    segmenters = {"whole": Segmenter.from_pretrained(str(drawing_model))}
    events = Events(SessionManager(segmenters, Limits(), tmp_path))
    found, scene, _, _, regions, *_ = events.drop([str(lesion)], WINDOWS[0], None, REQUEST)
    assert scene["warnings"][0] == "Choose a model: what does the image show?" and scene["width"] == 150
    assert not regions["visible"]
    asked = (found, 1, WINDOWS[0], None, 1, 0, "the model's own", 0, "", 0)
    assert list(events.draw_at_once(*asked, REQUEST)) == []
    with pytest.raises(Exception, match="choose a model: what does the image show"):
        list(events.draw(*asked, REQUEST))
    found, scene, *_ = events.change(found, 1, WINDOWS[0], "whole", REQUEST)
    assert "Choose a model" not in " ".join(scene["warnings"])
    asked = (found, 1, WINDOWS[0], "whole", 1, 0, "the model's own", 0, "", 0, REQUEST)
    *_, (drawn, done) = events.draw_chosen(*asked)
    assert len(drawn["masks"]) == 1 and done
    assert events.change(*asked[:4], REQUEST) == (gr.skip(),) * 7, "Gradio says so of a menu that is left by Tab"
    assert list(events.draw_chosen(*asked)) == []
