"""One training loop for every model: it knows `loss = model(batch)` and nothing else of what it trains.

RUN/STAGE/config.yaml      recipe, stage, data and split; an older folder with another config is refused
RUN/STAGE/metrics.jsonl    a line every few steps and at each validation; tensorboard/ has the same, and pictures
RUN/STAGE/progress.png     loss, validation and training score, learning rate; drawn again at each validation
RUN/STAGE/checkpoints/     last.safetensors (all state), best.safetensors (EMA weights of the best validation)
RUN/STAGE/samples/         pictures drawn at each validation
RUN/STAGE/model/           the model folder that `segment`, `evaluate` and `from_pretrained` take
"""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from manymask.data.case import Batch, Part, evenly_spaced
from manymask.data.twins import all_hashes
from manymask.errors import ConfigError, Interruption
from manymask.evaluation.held_out import check_no_leakage, matched_store
from manymask.extras import require_training
from manymask.hub.model_folder import TrainedModel, save_model
from manymask.hub.provenance import Provenance
from manymask.io.tensors import read_tensors, shapes, write_tensors, writing
from manymask.models.base import TrainableModel
from manymask.progress import Progress as ProgressBar
from manymask.rng import TrainingNoise, seed_of
from manymask.runtime import faster_precision, git_revision
from manymask.signals import Deferred
from manymask.training.checkpoint import Progress, RunFolder, load_checkpoint, save_checkpoint
from manymask.training.clock import Clock
from manymask.training.course import Course, Validation
from manymask.training.initialization import InitialState, TrainConfig, initial_state
from manymask.training.optim import batch_ids, clipping_groups, learning_rate, warm_started_ema
from manymask.training.tracking import tracking
from manymask.training.validation import described_sampling, validated

if TYPE_CHECKING:
    from accelerate import Accelerator

LOG_EVERY = 20
CHECKPOINT_SECONDS = 120.0
FINISH_CASES = 4096
HELD_OUT: tuple[Part, ...] = ("val", "test")


def new_accelerator(job: TrainConfig) -> "Accelerator":
    """The devices, processes and trackers of this run. The other processes wait while the main one validates."""
    require_training()
    from accelerate import Accelerator, InitProcessGroupKwargs

    patience = InitProcessGroupKwargs(timeout=timedelta(hours=2))
    return Accelerator(mixed_precision="no", kwargs_handlers=[patience], **tracking(job.folder, job.track))


def _check_data(job: TrainConfig) -> None:
    """Refuses a store that is not the recipe's, and masks from which nothing can be learnt."""
    matched_store(job.recipe, job.store)
    if job.store.name != job.recipe.dataset:
        raise ConfigError(
            f"{job.store.folder} holds {job.store.name}, the recipe takes {job.recipe.dataset}", path=job.store.folder
        )
    job.store.part(job.scheme, "val")
    job.store.check_masks(job.store.part(job.scheme, "train"))


def _check_parent(job: TrainConfig, begin: InitialState) -> None:
    """Refuses to hold out cases that the initial model was trained on."""
    if begin.parent is None:
        return
    for part in HELD_OUT:
        check_no_leakage(job.store.part(job.scheme, part), part, job.store, begin.parent, begin.seen)


def _decided_precision(job: TrainConfig, folder: RunFolder) -> str:
    """As requested; `auto` keeps what the run began with, else takes what is faster on the main process."""
    if job.precision != "auto":
        return job.precision
    from accelerate.utils import broadcast_object_list

    old = folder.old_config() or {}
    precision: str = broadcast_object_list([old.get("precision") or faster_precision()])[0]
    return precision


class Trainer:
    """One stage in training; `run()` goes on from where the folder stands until the steps or the minutes are used."""

    def __init__(
        self,
        job: TrainConfig,
        accelerator: "Accelerator",
        folder: RunFolder,
        begin: InitialState,
        precision: str,
    ) -> None:
        """Holds what `start` found; touches no files."""
        self.job = job
        self.git = git_revision()  # as the code was when it was loaded
        self.accelerator = accelerator
        self.folder = folder
        self.precision = precision
        self.training, self.augment = job.recipe.plan(job.stage)
        # the middle of what is stored; training draws its windows from all of it
        self.seen = matched_store(job.recipe, job.store)
        self.train_ids = job.store.part(job.scheme, "train")
        self.val_ids = job.store.part(job.scheme, "val")
        self.parent = begin.parent
        self.codecs = begin.codecs
        self.seen_ids = sorted(begin.seen | set(self.train_ids))
        self.seen_hashes = begin.hashes
        average = warm_started_ema(self.training.ema_decay)
        self.ema = AveragedModel(begin.model, multi_avg_fn=average).to(accelerator.device)
        self.metric = begin.model.validation_metric(job.store.raters)
        trained = [p for p in begin.model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=self.training.learning_rate, weight_decay=self.training.weight_decay)
        self.model, self.optimiser = accelerator.prepare(begin.model, optimiser)
        self.progress = Progress()
        self.saved = replace(self.progress)
        self.course = Course(self.metric)
        self.begun = 0
        self.loss: float | None = None
        self.clock = Clock(None)
        self.stop = Deferred()

    @classmethod
    def start(cls, job: TrainConfig) -> "Trainer":
        """Checks the job, builds or loads its model, claims the run folder and resumes its last checkpoint.

        Raises:
            ConfigError: data, recipe, run folder or initial weights do not fit together, or held-out cases were trained on.
        """
        _check_data(job)
        accelerator = new_accelerator(job)
        size = job.recipe.plan(job.stage)[0].batch_size
        if size % accelerator.num_processes:
            raise ConfigError(f"a batch of {size} cannot be shared by {accelerator.num_processes} processes")
        folder = RunFolder(job.folder, accelerator.is_main_process)
        precision = _decided_precision(job, folder)
        begin = initial_state(job)
        _check_parent(job, begin)
        trainer = cls(job, accelerator, folder, begin, precision)
        folder.claim()
        config = job.config() | {"precision": precision}
        folder.check(config)  # first: a checkpoint of other settings is no damaged one
        trainer.resume()
        lines = folder.begin(config, trainer.progress.step, accelerator)
        trainer.course = Course.read(trainer.metric, lines)
        return trainer

    def resume(self) -> None:
        """Goes on from the last checkpoint, if there is one."""
        if self.folder.last.exists():
            self.progress = load_checkpoint(self.folder.last, self.unwrapped, self.ema, self.optimiser)
        if not self.folder.has_best(self.ema.module):
            self.progress.best = -math.inf
        self.saved = replace(self.progress)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @property
    def unwrapped(self) -> nn.Module:
        result: nn.Module = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=True)
        return result

    def batch(self, step: int) -> Batch:
        """This process's share of the batch of a step, augmented, on the device."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        share = self.training.batch_size // world
        ids = batch_ids(self.train_ids, self.training.seed, step, self.training.batch_size)[rank * share :][:share]
        noise = TrainingNoise(self.training.seed, step, rank, world)
        whole, recipe = self.job.store.batch(ids, noise).to(self.accelerator.device), self.job.recipe
        return self.augment(whole, recipe.size, recipe.stretch)

    def step(self) -> dict[str, Tensor]:
        """One optimiser step; returns what the model logs."""
        step = self.progress.step
        # for dropout and the like: resuming changes nothing; all processes draw alike, so that codes are reset alike
        torch.manual_seed(seed_of("step", self.training.seed, step))
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(step, self.training)
        batch = self.batch(step)
        with self.autocast():
            logs = self.model(batch)
        self.accelerator.backward(logs["loss"])
        groups = clipping_groups(self.unwrapped)
        norms = [self.accelerator.clip_grad_norm_(group, self.training.max_grad_norm) for group in groups]
        norm = logs["gradient_norm"] = torch.stack(norms).norm()
        if not torch.isfinite(norm + logs["loss"].detach()):  # the norm is the same on all processes, so all stop
            raise ConfigError(
                f"the loss is {float(logs['loss'].detach())} and its gradient {float(norm)} at step {step + 1}, cases "
                f"{', '.join(batch.ids)}: try a lower learning rate, precision fp32, or look at these images",
                remedies=("precision",),
            )
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.ema.update_parameters(self.unwrapped)
        self.progress.step += 1
        result: dict[str, Tensor] = logs
        return result

    @property
    def alone(self) -> bool:
        return bool(self.accelerator.num_processes == 1)

    def run(self, max_minutes: float | None = None) -> Path:
        """Trains, and leaves a model folder behind, whose path is returned.

        On Ctrl-C or SIGTERM the step under way is finished and saved, and `Interruption` raised; several processes stop
        after the same step.
        """
        self.clock = Clock(max_minutes)
        # with a budget in minutes the time to the last step means nothing; what is left of the budget is shown instead
        layout = None if max_minutes is None else "{desc}: {n_fmt} steps [{elapsed}, {rate_fmt}{postfix}]"
        bar = ProgressBar(total=self.training.steps, bar_format=layout, initial=self.progress.step, desc=self.job.stage,
                          unit="step", disable=not self.accelerator.is_main_process,
                          dynamic_ncols=True, mininterval=1.0)  # fmt: skip
        with self.stop, bar:
            try:
                self._steps(bar)
                self.validate()
                self.checkpoint()
                with self.stop.at_once(self.alone):
                    place = self.export()
            except Interruption as stop:
                self.checkpoint()
                message = f"stopped at step {self.progress.step}; the same command goes on"
                raise Interruption(stop.number, message) from None
        if self.accelerator.is_main_process:
            kept = f"presence as it is after step {self.progress.step}" if self.keeps_last else self.course.words
            tqdm.write(f"{self.job.stage}: {kept}")
        return place

    def _steps(self, bar: "tqdm[Any]") -> None:
        saved, before = time.monotonic(), self.progress.seconds
        self.begun = self.progress.step
        if self.progress.step and self._validates_at(self.progress.step):
            self.validate()  # which an interruption may have left out
        while self.progress.step < self.training.steps and not self.flat:
            logs = self.step()
            self.progress.seconds = before + self.clock.elapsed
            if self.progress.step % LOG_EVERY == 0 or self.clock.log_due:
                self._log(logs)
            bar.set_postfix(self._shown(), refresh=False)
            bar.update()
            if self._validates_at(self.progress.step) or self.clock.validation_due:
                self.validate()
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                self.checkpoint()
                saved = time.monotonic()
            if self._over():
                break

    def _validates_at(self, step: int) -> bool:
        """Whether the recipe calls for a validation after this step; with a budget in minutes, the clock does."""
        return self.clock.budget is None and step % self.training.validate_every == 0

    @property
    def keeps_last(self) -> bool:
        """Whether the last weights are kept, not the best: where every image holds something, Dice favours a model that
        always says so, and cannot judge its presence."""
        return self.job.part == "presence"

    @property
    def flat(self) -> bool:
        """Whether validation has not gained for as long as the job is patient."""
        return self.job.patience is not None and not self.keeps_last and self.course.flat(self.job.patience)

    def _over(self) -> bool:
        """Whether the time is used up, by the main process's clock, or its validation is flat. Raises `Interruption` if a
        signal came to any process.

        All processes agree, and so stop after the same step.
        """
        over = self.accelerator.is_main_process and (self.clock.used or self.flat)
        state = [float(over), float(self.stop.number or 0)]
        if not self.alone:
            shared = torch.tensor(state, device=self.accelerator.device)
            torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
            state = shared.tolist()
        if state[1]:
            raise Interruption(int(state[1]))
        return bool(state[0])

    @property
    def rate(self) -> float:
        """Training images a second since the start of this call, validation included."""
        return (self.progress.step - self.begun) * self.training.batch_size / max(self.clock.elapsed, 1e-9)

    def _shown(self) -> dict[str, str]:
        """What stands on the bar: all but the loss is of this moment."""
        shown = (
            {"images/s": f"{self.rate:.1f}"}
            if self.loss is None
            else {"loss": f"{self.loss:.4g}", "images/s": f"{self.rate:.1f}"}
        )
        if (best := self.course.best) is not None:
            shown["best"] = f"{best.score:.3f} at {best.step}"
        return shown if self.clock.budget is None else shown | {"left": self.clock.left}

    def _log(self, logs: dict[str, Tensor]) -> None:
        line = {name: float(value.detach()) for name, value in logs.items()}
        self.loss = line["loss"]
        rate = {"lr": self.optimiser.param_groups[0]["lr"], "images_per_second": self.rate}
        self.folder.log({"step": self.progress.step, **rate} | line)
        self.clock.log()

    def checkpoint(self) -> None:
        """Saves all state, unless it is that of the last checkpoint."""
        if self.accelerator.is_main_process and self.saved != self.progress:
            save_checkpoint(self.folder.last, self.unwrapped, self.ema, self.optimiser, self.progress)
            self.saved = replace(self.progress)

    def validate(self) -> None:
        """Scores the averaged weights on a fixed part of the validation cases; keeps them if they are the best yet."""
        if not self.accelerator.is_main_process or not self.val_ids or self.progress.validated == self.progress.step:
            return
        began, model = time.monotonic(), cast(TrainableModel, self.ema.module)
        picture = self.folder.folder / "samples" / f"{self.progress.step:07}.png"
        parts, count = (self.val_ids, self.train_ids), self.training.validation_cases
        where = (picture, str(self.accelerator.device), self.precision == "bf16")
        with self.stop.at_once(self.alone), writing(picture), self.autocast():
            found = validated(model, self.seen, parts, count, self.metric, *where)
        self.progress.validated = self.progress.step
        scores = {"score": found.score, "train/score": found.train_score}
        self.folder.log({"step": self.progress.step, **found.means, **scores}, picture)
        self.course = self.course.then(Validation(self.progress.step, found.score, found.train_score))
        self.folder.draw_progress(self.training.batch_size, self.metric)
        tqdm.write(f"{self.job.stage} step {self.progress.step}: validation {self.metric} {found.score:.4f}")
        if found.score > self.progress.best or self.keeps_last:
            self._keep_best(found.score)
        self.clock.validation(time.monotonic() - began)

    def _keep_best(self, score: float) -> None:
        self.progress.best = score
        kept = {"step": str(self.progress.step), "score": f"{score:.4f}"}
        write_tensors(self.folder.best, self.ema.module.state_dict(), kept)
        self.checkpoint()  # so that a run that is killed now does not go on from before its best weights

    def export(self) -> Path:
        """Writes the model folder from the best averaged weights; a codec first measures its latents."""
        place = self.job.folder / "model"
        if self.accelerator.is_main_process:
            model: Any = self.ema.module
            if self.folder.best.exists():
                model.load_state_dict(read_tensors(self.folder.best, shapes(model)))
            model.eval()
            model.after_training(self._plain_batches(), self.job.recipe.segmenter.target)
            hashes = all_hashes([*self.seen_hashes, self.job.store.image_hashes(self.train_ids)])
            trained = TrainedModel(model.cpu(), self.job.recipe, self.job.stage, self._provenance(), self.seen_ids)
            save_model(replace(trained, training_hashes=hashes), place)
        self.accelerator.wait_for_everyone()
        return place

    def close(self) -> None:
        """All processes part together: one that left early would take the others down with it."""
        self.folder.close()
        self.accelerator.wait_for_everyone()
        if self.accelerator.num_processes > 1:
            torch.distributed.destroy_process_group()

    def _plain_batches(self) -> Iterator[Batch]:
        ids = evenly_spaced(self.train_ids, FINISH_CASES)
        for i in range(0, len(ids), 32):
            noise = TrainingNoise(self.training.seed, i)
            yield self.seen.batch(ids[i : i + 32], noise).to(self.accelerator.device)

    def _provenance(self) -> Provenance:
        """With the step and score of the weights that are kept, which need not be the last."""
        store, scheme, best = self.job.store, self.job.config()["data"]["scheme"], self.folder.best_metadata()
        how = f"EMA weights, up to {self.training.validation_cases} cases{described_sampling(self.unwrapped)}"
        score = f"{self.metric} {best['score']} ({how})" if best else ""
        return Provenance(store.name, store.hash, scheme, store.licence, int(best.get("step", self.progress.step)),
                          round(self.progress.seconds / 60, 1), self.git, score, self.parent, **self.codecs)  # fmt: skip


def fit(job: TrainConfig, max_minutes: float | None = None) -> Path:
    """Trains a stage (or goes on with it) and returns its model folder. Raises `Interruption` on Ctrl-C and SIGTERM, once all
    is saved."""
    training = Trainer.start(job)
    try:
        place = training.run(max_minutes)
    except Interruption:
        training.close()
        raise
    training.close()
    return place
