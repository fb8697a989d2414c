"""What is shipped is what was scored."""

import shutil
from dataclasses import replace

import pytest
import torch

from manymask.diffusion.samplers import DDPM
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import ConfigError, InputError, ManymaskError
from manymask.evaluation import publish as module
from manymask.evaluation.evaluator import EvalConfig, evaluate
from manymask.evaluation.publish import publish, with_sampling
from manymask.experiments.report.curves import curves
from manymask.hub.licenses import LICENCES, licence
from manymask.hub.model_card import measured_section
from manymask.hub.model_folder import load_model, save_model
from manymask.hub.provenance import Provenance
from manymask.io.atomic import read_json
from manymask.models.denoisers import PyramidUNet
from manymask.models.deterministic import OneToOne
from manymask.models.latent_diffusion import LatentDiffusion
from manymask.nn.losses import WeightedCE
from manymask.training.checkpoint import saved_progress
from manymask.training.trainer import TrainConfig, fit
from tests.factories import calibration_of


def test_published_model_gives_its_own_figures_again(trained_run, store, tmp_path):
    metrics = publish(trained_run, store.folder, tmp_path / "model", tmp_path / "results", seeds=2)
    shipped = load_model(tmp_path / "model")
    ids = store.part(None, "test")
    again = evaluate(shipped.model, store, ids, EvalConfig(), progress=False).metrics
    assert again["dice"]["mean"] == metrics["segmenter"][0]["metrics"]["dice"]["mean"]
    assert len(metrics["segmenter"]) == 2 and set(metrics) == {"segmenter", "mask-codec", "image-codec"}
    kept = read_json(tmp_path / "model" / "metrics.json")
    assert kept == read_json(tmp_path / "results" / "metrics.json")
    assert kept["segmenter"][0]["metrics"] == metrics["segmenter"][0]["metrics"]
    assert (tmp_path / "model" / "LICENSE").read_text() == licence("phantom").text
    assert "## Measured on test" in (tmp_path / "model" / "README.md").read_text()
    assert (tmp_path / "results" / "mask-codec" / "results.json").exists()
    assert (tmp_path / "results" / "figure.png").exists() and (tmp_path / "results" / "worst.png").exists()


def test_card_says_what_a_surface_distance_leaves_out_and_how_calibrated_it_is_near_the_lesion():
    metrics = {"dice": {"mean": 0.5, "n": 10}, "hd95": {"mean": 3.0, "n": 6, "skipped": 4, "missed": 3, "false": 1},
               "ece": {"mean": 0.01, "near_lesion": 0.25}}  # fmt: skip
    run = {"metrics": metrics, "data": {"scheme": "random"}, "protocol": {"samples": 5}, "git": "abc"}
    rows = measured_section({"segmenter": [run]})
    assert "(6 of 10; 3 answered with nothing; 1 answered where nothing is) | 3.0000 |" in rows
    assert "| segmenter | ECE | 0.0100 |" in rows
    assert "| segmenter | ECE within 5 px of the raters' masks | 0.2500 |" in rows


def test_worst_cases_are_named_worst_first(trained_run, store, tmp_path):
    publish(trained_run, store.folder, tmp_path / "model", tmp_path / "results")
    cases = read_json(tmp_path / "results" / "results.json")["cases"]
    worst = sorted(cases, key=lambda case: (case["dice"], case["relative_std"]))[:10]
    table, _, missed = (tmp_path / "results" / "worst.md").read_text().partition("\n\n")
    assert [line.split(" | ")[0].strip("| ") for line in table.splitlines()[2:]] == [case["id"] for case in worst]
    assert missed.startswith(f"Of {len(cases)} cases {sum(case['dice'] == 0 for case in cases)} are missed")


def test_pictures_of_data_that_may_not_be_shown_are_not_drawn(trained_run, store, tmp_path, monkeypatch):
    monkeypatch.setitem(LICENCES, "phantom", licence("cvc_clinicdb"))
    publish(trained_run, store.folder, tmp_path / "model", tmp_path / "results")
    assert not list((tmp_path / "results").rglob("*.png"))
    assert "No commercial use" in (tmp_path / "model" / "LICENSE").read_text()


def test_samples_of_one_view_are_scored_beside_those_spread_over_turns(trained_run, store, tmp_path):
    metrics = publish(
        trained_run, store.folder, tmp_path / "model", tmp_path / "results", sampling=SamplingConfig(orientations=5)
    )
    plain = publish(trained_run, store.folder, tmp_path / "plain", tmp_path / "plain-results")
    assert metrics["upright"][0]["metrics"] == plain["segmenter"][0]["metrics"] != metrics["segmenter"][0]["metrics"]
    assert "spread over 5 flips" in (tmp_path / "model" / "README.md").read_text()


def test_shipped_model_draws_as_it_was_told_to(trained_run, store, tmp_path):
    few = publish(
        trained_run,
        store.folder,
        tmp_path / "model",
        tmp_path / "results",
        cases=2,
        sampling=SamplingConfig("ddpm", 4, 3),
    )
    shipped = load_model(tmp_path / "model").model.setting
    assert (shipped.orientations, shipped.sampler) == (3, DDPM(4))
    assert "upright" in few
    assert load_model(tmp_path / "model").provenance.score.endswith("; DDIM-3)")  # what validation had drawn with


def test_way_of_drawing_is_for_diffusion_models(trained_run):
    codec = load_model(trained_run / "mask-codec" / "model")
    once = load_model(trained_run)
    once.recipe = replace(once.recipe, segmenter=OneToOne())
    for trained in (codec, once):
        with pytest.raises(ManymaskError, match="only diffusion models"):
            with_sampling(trained, SamplingConfig(orientations=2))


def test_impossible_sampling_is_refused_before_anything_is_scored(trained_run, store, tmp_path):
    with pytest.raises(ManymaskError, match=r"takes 1001 steps, the process has 1 … 1000"):
        publish(
            trained_run, store.folder, tmp_path / "model", tmp_path / "results", sampling=SamplingConfig(steps=1001)
        )
    assert not list(tmp_path.iterdir())


def test_other_sampling_makes_another_model_and_leaves_the_given_one(trained_run):
    trained = load_model(trained_run)
    before = trained.model.setting
    other = with_sampling(trained, SamplingConfig("ddpm", 4, 3))
    assert other.model is not trained.model and trained.model.setting == before == trained.recipe.segmenter
    assert other.model.setting == other.recipe.segmenter and other.model.setting.sampling == SamplingConfig(
        DDPM(4), 4, 3, 1.0, 0.0
    )
    assert other.fingerprint == trained.fingerprint


def test_a_mask_head_gets_its_share_when_a_model_is_published(trained_run, store, tmp_path):
    trained = load_model(trained_run)
    with pytest.raises(ManymaskError, match="no auxiliary mask head"):
        with_sampling(trained, SamplingConfig(head_share=0.4))
    recipe = replace(trained.recipe, segmenter=replace(trained.recipe.segmenter, auxiliary=WeightedCE(1)))
    given = replace(trained, recipe=recipe, model=recipe.build("segmenter"))
    save_model(given, tmp_path / "run/segmenter/model")
    sampling = SamplingConfig(head_share=0.4)
    publish(tmp_path / "run", store.folder, tmp_path / "model", tmp_path / "results", cases=2, sampling=sampling)
    shipped = load_model(tmp_path / "model")
    assert shipped.model.setting.head_share == 0.4 and given.model.setting.head_share == 0
    assert "share of 0.4 in each (`head_share`)" in (tmp_path / "model/README.md").read_text()
    assert read_json(tmp_path / "results/results.json")["protocol"]["head_share"] == 0.4


def alone(recipe, steps=70):
    """The recipe with codecs of which the decoder alone is trained."""
    return replace(recipe, codec_training=replace(recipe.codec_training, part="decoder", steps=steps))


@pytest.fixture(params=["mask-codec", "segmenter"])
def decoder_alone(request, trained_run, store, recipe, tmp_path):
    """The run's mask codec, taken from its own folder or from the segmenter, after more training of its decoder alone."""
    init = trained_run / request.param / "model"
    return fit(TrainConfig(alone(recipe), "mask-codec", store, tmp_path / "decoder", init=init))


def test_decoder_trained_alone_keeps_every_latent(trained_run, decoder_alone):
    before, after = (load_model(folder).model for folder in (trained_run / "mask-codec" / "model", decoder_alone))
    assert before.same_latents(after)
    assert any(
        not torch.equal(a, b) for a, b in zip(before.decoder.parameters(), after.decoder.parameters(), strict=True)
    )


def test_model_is_shipped_with_the_decoder_that_was_trained_on(trained_run, store, decoder_alone, tmp_path):
    publish(trained_run, store.folder, tmp_path / "model", tmp_path / "results", mask_codec=decoder_alone)
    shipped, wanted = load_model(tmp_path / "model").model.mask_codec, load_model(decoder_alone).model
    for ours, theirs in zip(shipped.parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)  # in half precision
    own = load_model(tmp_path / "model").provenance
    assert own.mask_codec == load_model(decoder_alone).provenance and own.mask_codec.steps == 70
    assert "| mask codec | " in (tmp_path / "model" / "README.md").read_text()
    scored = read_json(tmp_path / "results" / "mask-codec" / "results.json")
    assert scored["model"]["provenance"]["steps"] == 70


def test_decoder_of_an_image_codec_is_trained_alone(trained_run, store, recipe, tmp_path):
    init = trained_run / "image-codec" / "model"
    after = fit(TrainConfig(alone(recipe, 3), "image-codec", store, tmp_path / "decoder", init=init))
    assert load_model(init).model.same_latents(load_model(after).model)


def test_latents_stay_when_training_of_a_decoder_alone_is_resumed(trained_run, store, recipe, tmp_path):
    init = trained_run / "mask-codec" / "model"
    for steps in (2, 4):
        folder = tmp_path / "decoder" / "mask-codec" / "config.yaml"
        if folder.exists():  # the same run, given more steps
            folder.write_text(folder.read_text().replace("steps: 2", "steps: 4"))
        after = fit(TrainConfig(alone(recipe, steps), "mask-codec", store, tmp_path / "decoder", init=init))
    assert load_model(init).model.same_latents(load_model(after).model)
    assert saved_progress(tmp_path / "decoder" / "mask-codec" / "checkpoints" / "last.safetensors").step == 4


def test_decoder_whose_logits_mean_something_else_is_refused(trained_run, store, recipe, decoder_alone, tmp_path):
    given = load_model(decoder_alone)
    heavier = replace(given.recipe, mask_codec=replace(given.recipe.mask_codec, loss=WeightedCE(50.0, unbias=True)))
    save_model(replace(given, recipe=heavier), tmp_path / "given")
    with pytest.raises(ManymaskError, match="other settings"):
        publish(trained_run, store.folder, tmp_path / "model", tmp_path / "results", mask_codec=tmp_path / "given")
    init = trained_run / "mask-codec" / "model"
    with pytest.raises(ManymaskError, match="other settings"):
        fit(
            TrainConfig(
                replace(alone(recipe), mask_codec=heavier.mask_codec), "mask-codec", store, tmp_path / "run", init=init
            )
        )


def test_decoder_trained_on_another_split_is_refused(trained_run, store, decoder_alone, tmp_path):
    given = load_model(decoder_alone)
    save_model(replace(given, provenance=replace(given.provenance, scheme="another")), tmp_path / "given")
    with pytest.raises(ManymaskError, match="another split"):
        publish(trained_run, store.folder, tmp_path / "model", tmp_path / "results", mask_codec=tmp_path / "given")


def test_published_model_knows_how_its_codecs_were_trained(trained_run, store, tmp_path):
    publish(trained_run, store.folder, tmp_path / "model", tmp_path / "results")
    for stage in ("image-codec", "mask-codec"):
        trained = load_model(trained_run / stage / "model").provenance
        assert getattr(load_model(tmp_path / "model").provenance, stage.replace("-", "_")) == trained
        assert read_json(tmp_path / "results" / stage / "results.json")["model"]["provenance"]["git"] == trained.git


def test_mask_codec_of_other_latents_is_refused(trained_run, store, recipe, tmp_path):
    other = replace(recipe, codec_training=replace(recipe.codec_training, seed=1, steps=2))
    codec = fit(TrainConfig(other, "mask-codec", store, tmp_path / "other"))
    with pytest.raises(ManymaskError, match="other latents"):
        publish(trained_run, store.folder, tmp_path / "model", tmp_path / "results", mask_codec=codec)


@pytest.mark.parametrize("stage", ["mask-codec", "segmenter"])
def test_only_a_codec_that_exists_has_its_decoder_trained_alone(recipe, store, tmp_path, stage):
    alone = replace(recipe.training, part="decoder")
    with pytest.raises(ManymaskError, match="only a codec's decoder"):
        TrainConfig(replace(recipe, training=alone, codec_training=alone), stage, store, tmp_path)


def test_only_an_earlier_model_of_the_same_kind_is_replaced(trained_run, store, tmp_path, recipe, monkeypatch):
    monkeypatch.setattr(module, "_all_scores", lambda *_: pytest.fail("scored before the place was looked at"))
    place = tmp_path / "model"
    other = replace(recipe, dataset="isic2018")
    trained = load_model(trained_run)
    save_model(replace(trained, recipe=other), place)
    with pytest.raises(ConfigError, match=r"holds the model .* of isic2018, not .* of phantom: name another place"):
        publish(trained_run, store.folder, place, tmp_path / "results")
    save_model(trained, place)
    (place / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt in it lost"):
        publish(trained_run, store.folder, place, tmp_path / "results")
    assert (place / "notes.txt").exists() and not (tmp_path / "results").exists()


def test_a_calibrated_run_is_published_without_its_calibration(trained_run, store, tmp_path, capsys):
    trained = load_model(trained_run)
    save_model(replace(trained, calibration=calibration_of(trained, store.batch(store.ids[:2]))), tmp_path / "given")
    publish(tmp_path / "given", store.folder, tmp_path / "model", tmp_path / "results", cases=1)
    assert load_model(tmp_path / "model").calibration is None and "calibrate MODEL" in capsys.readouterr().err


def test_model_of_other_data_is_not_published(trained_run, store, tmp_path):
    trained = load_model(trained_run)
    save_model(replace(trained, provenance=replace(trained.provenance, data_hash="another")), tmp_path / "given")
    with pytest.raises(ManymaskError, match=r"not what .* was trained on"):
        publish(tmp_path / "given", store.folder, tmp_path / "model", tmp_path / "results")


def test_terms_of_pretrained_weights_and_of_what_codecs_saw_hold(trained_run, recipe):
    trained = load_model(trained_run)
    elsewhere = replace(trained.provenance, mask_codec=Provenance("cvc_clinicdb"))
    assert "No commercial use" in replace(trained, provenance=elsewhere).licence.text
    pretrained = replace(recipe, segmenter=LatentDiffusion(PyramidUNet(backbone="efficientnet-lite0")))
    assert "ML Illustrated" in replace(trained, recipe=pretrained).licence.text
    assert "ML Illustrated" not in trained.licence.text
    assert replace(trained, recipe=pretrained).licence.tag == trained.licence.tag


def test_terms_of_all_data_on_the_way_hold():
    both = licence("isic2018", "cvc_clinicdb")
    assert "CC0" in both.text and "No commercial use" in both.text and both.tag == "other" and both.pictures
    assert licence("isic2018", "isic2018") == licence("isic2018")
    assert not licence("mine").pictures and licence("mine") == licence("another")


def test_presence_is_shifted_when_a_model_is_published(trained_run, store, tmp_path):
    trained = load_model(trained_run)
    with pytest.raises(ManymaskError, match="no presence to shift"):
        with_sampling(trained, SamplingConfig(), presence_shift=0.8)
    recipe = replace(trained.recipe, segmenter=replace(trained.recipe.segmenter, presence=True))
    given = replace(trained, recipe=recipe, model=recipe.build("segmenter"))
    save_model(given, tmp_path / "run/segmenter/model")
    publish(tmp_path / "run", store.folder, tmp_path / "model", tmp_path / "results", cases=2, presence_shift=20.0)
    shipped = load_model(tmp_path / "model")
    assert shipped.model.presence.shift == 20 and given.model.presence.shift == 0
    assert "lowered by 20 (`presence_shift`)" in (tmp_path / "model/README.md").read_text()
    found = read_json(tmp_path / "results/results.json")
    assert found["metrics"]["dice"]["mean"] == 0


@pytest.mark.parametrize("place", ["run", "run/segmenter", "run/segmenter/model", "results", "."])
def test_a_model_is_not_published_over_its_run_or_its_results(trained_run, store, tmp_path, place):
    shutil.copytree(trained_run, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(ManymaskError, match="name another place"):
        publish(tmp_path / "run", store.folder, tmp_path / place, tmp_path / "results", cases=1)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    assert not (tmp_path / "results").exists()


def test_results_find_their_place_before_anything_is_scored(monkeypatch, trained_run, store, tmp_path):
    monkeypatch.setattr("manymask.evaluation.publish._all_scores", None)  # is not come to
    (tmp_path / "file").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/metrics.json").write_text('{"mine": 1}')
    for out, said in (("file", "file"), ("mine", r"metrics\.json exists already")):
        with pytest.raises(ManymaskError, match=said):
            publish(trained_run, store.folder, tmp_path / "model", tmp_path / out, cases=1)
    with pytest.raises(ManymaskError, match="file"):
        curves(trained_run, store.folder, tmp_path / "file", 1)
