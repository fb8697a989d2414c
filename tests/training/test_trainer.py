"""The training loop: resumable at any moment, the same over several processes, loud when something is wrong."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from manymask.config import to_dict
from manymask.errors import ConfigError, DataLeakError, InputError
from manymask.hub.model_folder import load_model
from manymask.nn.losses import WeightedCE
from manymask.recipes import Stage, Training
from manymask.training.initialization import TrainOptions
from manymask.training.optim import batch_ids, learning_rate, warm_started_ema
from manymask.training.trainer import TrainConfig, Trainer, fit
from tests.factories import job, same, shortened, stopped_after, tiny_recipe


@pytest.mark.parametrize("stage", ["image-codec", "mask-codec", "segmenter"])
def test_resumed_run_equals_uninterrupted(stage, store, trained_run, tmp_path):
    for name in ("whole", "cut"):
        for codec in ("image-codec", "mask-codec"):
            if stage == "segmenter":
                shutil.copytree(trained_run / codec, tmp_path / name / codec)
    fit(job(store, tmp_path / "whole", stage))
    stopped_after(job(store, tmp_path / "cut", stage), 3)
    fit(job(store, tmp_path / "cut", stage))
    ends = [tmp_path / n / stage / "checkpoints" / "last.safetensors" for n in ("whole", "cut")]
    assert same(*ends)
    assert same(*(tmp_path / n / stage / "checkpoints" / "best.safetensors" for n in ("whole", "cut")))


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from manymask.data.store import Store
import manymask.training.trainer as train
train.CHECKPOINT_SECONDS = 0.0  # a checkpoint after every step, so that a kill hits some write
from tests.factories import shortened, tiny_recipe
train.fit(train.TrainConfig(shortened(tiny_recipe(), 60), "mask-codec", Store(Path({store!r})), Path({run!r}), precision="fp32"))
"""


def test_killed_run_goes_on_and_ends_with_equal_weights(store, tmp_path):
    script = SCRIPT.format(tests=str(Path(__file__).parents[2]), store=str(store.folder), run=str(tmp_path / "killed"))
    last = tmp_path / "killed/mask-codec/checkpoints/last.safetensors"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.15)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    fit(job(store, tmp_path / "killed", steps=60))
    fit(job(store, tmp_path / "whole", steps=60))
    assert same(last, tmp_path / "whole/mask-codec/checkpoints/last.safetensors")
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "killed/mask-codec/metrics.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(steps), "a resumed run writes no metrics twice"


WORKER = """
import json, os, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from manymask.data.store import Store
from manymask.training.trainer import Trainer, TrainConfig
from tests.factories import tiny_recipe
import torch
torch.set_num_threads(1)
fit = Trainer.start(TrainConfig(tiny_recipe(), "mask-codec", Store(Path({store!r})), Path({run!r}), precision="fp32"))
losses = []
for _ in range(4):
    logs = fit.step()
    losses.append(float(fit.accelerator.reduce(logs["loss"].detach(), "mean")))
if fit.accelerator.is_main_process:
    print(json.dumps(losses), flush=True)
fit.close()
sys.stdout.flush()
os._exit(0)  # the claim is about losses, not about how gloo's threads end
"""


@pytest.mark.parametrize("nodes", [1, 2])
def test_two_processes_lose_what_one_loses(store, tmp_path, nodes):
    """Two gloo processes with half the batch each against one with all of it; on two nodes, each has its own launcher."""
    launch = ["-m", "torch.distributed.run", "--nnodes", str(nodes), "--nproc-per-node", str(2 // nodes)]
    launch += ["--master-addr", "127.0.0.1", "--master-port", str(29500 + os.getpid() % 400 + nodes)]
    alone = losses_of([[]], store, tmp_path / "alone")
    together = losses_of([[*launch, "--node-rank", str(rank)] for rank in range(nodes)], store, tmp_path / "together")
    assert alone == pytest.approx(together, rel=1e-4)


def losses_of(launches, store, place):
    """What the main process prints of a run; its nodes share the run folder."""
    place.mkdir()
    (place / "worker.py").write_text(
        WORKER.format(tests=str(Path(__file__).parents[2]), store=str(store.folder), run=str(place / "run"))
    )
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    commands = [[sys.executable, *launch, str(place / "worker.py")] for launch in launches]
    nodes = [subprocess.Popen(command, env=environment, **streams) for command in commands]
    try:
        said = [node.communicate(timeout=240) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0] * len(nodes), said
    return json.loads(said[0][0].strip().splitlines()[-1])


def test_changed_recipe_in_an_old_run_folder_is_refused(store, tmp_path):
    stopped_after(job(store, tmp_path), 1)
    changed = job(store, tmp_path, codec_training=replace(tiny_recipe().codec_training, batch_size=2))
    with pytest.raises(ConfigError, match=r"other settings \(recipe\.codec_training\.batch_size: 4 → 2\)"):
        Trainer.start(changed)


def test_setting_younger_than_a_run_stays_at_its_default(store, tmp_path):
    asked = job(store, tmp_path)
    stopped_after(asked, 1)
    place = asked.folder / "config.yaml"
    config = yaml.safe_load(place.read_text())
    del config["recipe"]["codec_training"]["max_grad_norm"]
    place.write_text(yaml.safe_dump(config))
    Trainer.start(job(store, tmp_path))
    with pytest.raises(ConfigError, match=r"other settings \(recipe\.codec_training\.max_grad_norm: 1\.0 → 2\.0\)"):
        Trainer.start(job(store, tmp_path, codec_training=replace(tiny_recipe().codec_training, max_grad_norm=2.0)))


def test_non_finite_loss_names_step_and_cases(store, tmp_path):
    started = Trainer.start(job(store, tmp_path))
    with torch.no_grad():
        list(started.model.parameters())[-1].fill_(float("nan"))
    with pytest.raises(
        ConfigError, match=r"loss is nan and its gradient nan at step 1, cases phantom-\d+.*lower learning rate"
    ):
        started.step()


def test_damaged_checkpoint_is_a_clear_error(store, tmp_path):
    stopped_after(job(store, tmp_path), 1)
    last = tmp_path / "mask-codec/checkpoints/last.safetensors"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"last\.safetensors is damaged"):
        Trainer.start(job(store, tmp_path))


def test_checkpoint_of_other_network_sizes_is_not_called_damaged(store, tmp_path):
    stopped_after(job(store, tmp_path), 1)
    smaller = replace(tiny_recipe().mask_codec, channels=(8, 24))
    with pytest.raises(
        ConfigError, match=r"other settings \(recipe\.mask_codec\.channels.*another run folder"
    ) as refused:
        Trainer.start(job(store, tmp_path, mask_codec=smaller))
    assert "start over" not in str(refused.value)


def test_damaged_best_weights_are_told_at_the_start_and_new_ones_kept_without_them(store, tmp_path):
    fit(job(store, tmp_path, steps=2))
    best = tmp_path / "mask-codec/checkpoints/best.safetensors"
    best.write_bytes(best.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"best\.safetensors is damaged.*remove best\.safetensors to go on without"):
        Trainer.start(job(store, tmp_path, steps=2))
    best.unlink()
    last = Trainer.start(job(store, tmp_path, steps=2))
    assert last.progress.step == 2 and last.progress.best == -math.inf
    last.close()


@pytest.mark.parametrize(
    ("stage", "given", "said"),
    [
        ("image-codec", "mask-codec", "is a mask-codec: an image-codec starts from another, or from a segmenter"),
        ("mask-codec", "image-codec", "is an image-codec: a mask-codec starts from another, or from a segmenter"),
        ("segmenter", "mask-codec", "is a mask-codec: a segmenter starts from another"),
    ],
)
def test_start_from_a_model_of_another_kind_is_refused(store, trained_run, tmp_path, stage, given, said):
    with pytest.raises(ConfigError, match=said):
        Trainer.start(replace(job(store, tmp_path, stage), init=trained_run / given / "model"))


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_is_a_number_of_minutes(store, tmp_path, minutes):
    options = TrainOptions(store.folder, tmp_path, tiny_recipe(), max_minutes=minutes)
    with pytest.raises(ConfigError, match="max-minutes must be above 0"):
        options.job(Stage.MASK_CODEC)


def test_refused_command_leaves_the_run_folder_untouched(store, tmp_path):
    wrong = replace(job(store, tmp_path), scheme="typo")
    with pytest.raises(ConfigError, match="has no split 'typo'"):
        Trainer.start(wrong)
    assert not any(tmp_path.rglob("*"))
    assert Trainer.start(job(store, tmp_path)).progress.step == 0


def test_store_of_another_size_is_refused(store, tmp_path):
    recipe = replace(tiny_recipe(), size=128)
    with pytest.raises(InputError, match=r"prepared at 64² with 1 channel\(s\), the recipe takes 128²"):
        Trainer.start(TrainConfig(recipe, "mask-codec", store, tmp_path))


def test_codec_of_other_settings_is_refused(store, trained_run, tmp_path):
    recipe = tiny_recipe()
    recipe = replace(recipe, mask_codec=replace(recipe.mask_codec, quantize_on_decode=True))
    with pytest.raises(ConfigError, match=r"trained with other settings \(quantize_on_decode: False → True\)"):
        Trainer.start(TrainConfig(recipe, "segmenter", store, trained_run))


def test_cases_that_a_part_has_seen_count_as_seen(store, trained_run, tmp_path):
    """A model that starts from another keeps that one's training cases among its own."""
    shutil.copytree(trained_run / "mask-codec" / "model", tmp_path / "given")
    (tmp_path / "given" / "training_ids.txt").write_text("phantom-99999\n")
    fit(replace(job(store, tmp_path / "run", steps=1), init=tmp_path / "given"))
    assert "phantom-99999" in load_model(tmp_path / "run" / "mask-codec" / "model").training_ids


def test_metrics_cut_short_by_a_kill_are_forgotten(store, tmp_path):
    stopped_after(job(store, tmp_path), 1)
    metrics = tmp_path / "mask-codec" / "metrics.jsonl"
    metrics.write_text('{"step": 1, "loss": 1.0}\n{"step": 40, "loss": 1.0}\n{"step": 1, "lo')
    Trainer.start(job(store, tmp_path))
    assert metrics.read_text() == '{"step": 1, "loss": 1.0}\n'


def test_segmenter_without_codecs_says_what_to_run(store, tmp_path):
    with pytest.raises(ConfigError, match="needs a trained image-codec"):
        Trainer.start(job(store, tmp_path, "segmenter"))


def test_run_folder_holds_what_is_promised(trained_run):
    for stage in ("image-codec", "mask-codec", "segmenter"):
        names = {p.name for p in (trained_run / stage).iterdir()}
        assert {"config.yaml", "metrics.jsonl", "checkpoints", "model", "samples", "tensorboard"} <= names
        assert {"last.safetensors", "best.safetensors"} == {
            p.name for p in (trained_run / stage / "checkpoints").iterdir()
        }


def test_init_starts_from_saved_weights(store, trained_run, tmp_path):
    given = replace(job(store, tmp_path), init=trained_run / "mask-codec" / "model")
    start = Trainer.start(given).unwrapped.state_dict()
    saved = load_file(trained_run / "mask-codec" / "model" / "codec.safetensors")
    assert all(torch.equal(start[k], saved[k]) for k in saved)


def test_start_from_a_model_that_saw_the_test_part_is_refused(store, trained_run, tmp_path):
    shutil.copytree(trained_run / "mask-codec" / "model", tmp_path / "given")
    (tmp_path / "given" / "training_ids.txt").write_text("\n".join(store.part(None, "test")) + "\n")
    with pytest.raises(DataLeakError, match="of the test cases were trained on"):
        Trainer.start(replace(job(store, tmp_path), init=tmp_path / "given"))


def test_model_remembers_what_it_started_from(store, trained_run, tmp_path):
    place = fit(replace(job(store, tmp_path, steps=1), init=trained_run / "mask-codec" / "model"))
    before = load_model(trained_run / "mask-codec" / "model").provenance
    assert load_model(place).provenance.parent == before
    assert "| started from | a model of phantom" in (place / "README.md").read_text()


def test_codecs_that_fit_but_mean_something_else_are_refused(store, trained_run, tmp_path):
    wanted = replace(tiny_recipe().mask_codec, loss=WeightedCE(50, unbias=True))
    given = replace(job(store, tmp_path, "segmenter", mask_codec=wanted), init=trained_run / "segmenter" / "model")
    with pytest.raises(ConfigError, match=r"trained with other settings \(loss"):
        Trainer.start(given)


def test_recipe_of_another_data_set_is_refused(store, tmp_path):
    with pytest.raises(ConfigError, match="holds phantom, the recipe takes isic2018"):
        Trainer.start(job(store, tmp_path, dataset="isic2018"))


def test_model_folder_names_the_step_of_its_weights(store, tmp_path):
    place = fit(job(store, tmp_path, steps=2))
    with safe_open(tmp_path / "mask-codec" / "checkpoints" / "best.safetensors", framework="pt") as best:
        step, score = best.metadata()["step"], best.metadata()["score"]
    found = load_model(place).provenance
    assert found.steps == int(step) and score in found.score


def test_init_brings_all_but_the_parts_that_come_and_go_with_settings(store, trained_run, tmp_path):
    plain = replace(job(store, tmp_path / "a", "segmenter"), init=trained_run / "segmenter" / "model")
    recipe = replace(plain.recipe, segmenter=replace(plain.recipe.segmenter, presence=True))
    start = Trainer.start(replace(plain, recipe=recipe)).unwrapped
    saved = load_file(trained_run / "segmenter" / "model" / "denoiser.safetensors")
    assert start.presence is not None
    assert all(torch.equal(value, saved[name]) for name, value in start.denoiser.state_dict().items())
    fit(replace(job(store, tmp_path / "b", "segmenter", steps=1), recipe=recipe, init=trained_run / "segmenter/model"))
    back = Trainer.start(replace(plain, run=tmp_path / "c", init=tmp_path / "b" / "segmenter" / "model")).unwrapped
    assert back.presence is None


def test_presence_is_trained_alone_and_what_is_drawn_stays(store, trained_run, tmp_path):
    plain = job(store, tmp_path, "segmenter", steps=2)
    recipe = replace(
        plain.recipe,
        segmenter=replace(plain.recipe.segmenter, presence=True),
        training=replace(plain.recipe.training, part="presence", weight_decay=0.5),
    )
    alone = replace(plain, recipe=recipe, init=trained_run / "segmenter" / "model")
    begun = Trainer.start(replace(alone, run=tmp_path / "begun"))
    assert begun.step().keys() >= {"loss", "presence"} and not begun.step().keys() & {"denoising", "dice"}
    before, after = load_model(trained_run).model, load_model(fit(alone)).model
    drawn = {k: v for k, v in after.state_dict().items() if not k.startswith("presence.")}
    assert drawn.keys() == before.state_dict().keys() and after.presence is not None
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in drawn.items())
    with pytest.raises(ConfigError, match="has no presence to train"):
        Trainer.start(replace(alone, recipe=replace(recipe, segmenter=plain.recipe.segmenter), run=tmp_path / "no"))
    with pytest.raises(ConfigError, match="only a codec's decoder and a segmenter's presence"):
        replace(alone, init=None)


def test_max_minutes_stops_and_the_next_call_goes_on(store, tmp_path):
    fit(job(store, tmp_path, steps=50), max_minutes=0.0)
    assert (tmp_path / "mask-codec/model/config.json").exists()
    going_on = Trainer.start(job(store, tmp_path, steps=50))
    assert 1 <= going_on.progress.step < 50


def test_learning_rate_depends_on_the_step_alone():
    training = Training(learning_rate=1.0, warmup=10, decay_after=100)
    assert learning_rate(0, training) == pytest.approx(0.1)
    assert learning_rate(50, training) == learning_rate(99, training) == 1.0
    assert learning_rate(400, training) == pytest.approx(0.5)
    assert learning_rate(50, replace(training, steps=60)) == 1.0


def test_ema_is_warm_started():
    averaged, current = [torch.zeros(1)], [torch.ones(1)]
    warm_started_ema(0.9999)(averaged, current, torch.tensor(0))
    assert float(averaged[0]) == pytest.approx(0.9)
    late = [torch.zeros(1)]
    warm_started_ema(0.99)(late, current, 10**6)
    assert float(late[0]) == pytest.approx(0.01)


def test_every_case_is_seen_once_an_epoch():
    ids = [str(i) for i in range(10)]
    seen = [case for step in range(5) for case in batch_ids(ids, 0, step, 4)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == ids
    assert seen[:10] != seen[10:]


def test_config_of_a_run_is_plain_yaml(trained_run):
    import yaml

    config = yaml.safe_load((trained_run / "segmenter/config.yaml").read_text())
    assert config["recipe"] == json.loads(json.dumps(to_dict(shortened(tiny_recipe(), 2))))
