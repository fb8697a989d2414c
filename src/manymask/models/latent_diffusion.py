"""Models that segment: `forward(batch)` gives the training loss, `predict(batch, n, seed)` n masks for each image."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import Tensor, nn

from manymask.data.augment import quarter_turn, quarter_turn_back
from manymask.data.case import Batch
from manymask.data.raters import Target, training_target
from manymask.diffusion.guidance import NullLatent, PairClassifier, classifier_free, classifier_guided
from manymask.diffusion.process import Diffusion, Process, stratified
from manymask.diffusion.samplers import DDIM, Denoise, Sampler, check_fit
from manymask.errors import UserError
from manymask.models.autoencoder import CodecSetting
from manymask.models.base import Streaming, Watch
from manymask.models.denoisers import ConcatUNet, Denoiser
from manymask.models.deterministic import OneToOne
from manymask.models.presence import Presence, mean_over_marked
from manymask.models.prob_unet import ProbUNet
from manymask.rng import SampleNoise, strata

DECODED_AT_ONCE = 16  # masks; the decoder's feature maps are the largest of all


@dataclass(frozen=True)
class LatentDiffusion:
    """The paper's segmenter (Section III-C): a conditional diffusion of mask latents.

    noise_levels: how many (t, ε) are drawn for each image of a batch, since its condition is encoded but once, and with them
    readers where one at random is learnt;
    train_image_codec: whether the image encoder, started from the codec, is trained along; target: which of several
    readers' masks is learnt, their consensus or one at random; dice: the weight of a Dice loss on the decoded x̂₀, which
    asks for one mask rather than the mean of many; coarse: the weight of a cross-entropy on a mask at latent size that is
    read off the condition alone, so that the encoder learns from every step, however little noise there is (for denoisers
    with features); presence: whether p(anything is marked) is learnt by itself, the diffusion then learning marked masks
    alone, and decides by stratified draws which samples are empty (see `presence.py`); turns: over how many of the eight
    flips and quarter turns of the image the samples are spread (1: the image as it is), each of which encodes it once more.

    drop_condition: share of images that are hidden in training, which `guidance` ≠ 1 needs: the scale of classifier-free
    guidance when masks are drawn; classifier: trained along, and pulls by its own scale (see `guidance.py`).
    """

    denoiser: Denoiser = ConcatUNet()
    process: Process = Diffusion()
    sampler: Sampler = DDIM()
    target: Target = "consensus"
    noise_levels: int = 1
    train_image_codec: bool = False
    dice: float = 0.0
    coarse: float = 0.0
    presence: bool = False
    turns: int = 1
    drop_condition: float = 0.0
    guidance: float = 1.0
    classifier: PairClassifier | None = None

    def build(self, channels: int, image_codec: CodecSetting, mask_codec: CodecSetting) -> "DiffusionSegmenter":
        return DiffusionSegmenter(self, channels, image_codec, mask_codec)


@dataclass(frozen=True)
class Told:
    """What is known of images (B, …) before any mask is drawn: condition maps, those of no image, image latents, and p(anything
    is marked)."""

    seen: list[Tensor]
    blind: list[Tensor] | None = None
    z_image: Tensor | None = None
    present: Tensor | None = None

    def rows(self, turns: list[int], cases: int) -> "Told":
        """For each case, its rows of these turns: what was told of turn k stands from row k · cases on."""
        index = torch.tensor([turn * cases + case for case in range(cases) for turn in turns])

        def pick(x: Tensor) -> Tensor:
            return x[index.to(x.device)]

        blind = None if self.blind is None else [pick(x) for x in self.blind]
        return Told([pick(x) for x in self.seen], blind, None if self.z_image is None else pick(self.z_image))


class DiffusionSegmenter(Streaming):
    """See `LatentDiffusion`. The parts are `image_codec`, `mask_codec` (frozen) and `denoiser`; for guidance, `null` and
    `classifier`."""

    def __init__(
        self, setting: LatentDiffusion, channels: int, image_codec: CodecSetting, mask_codec: CodecSetting
    ) -> None:
        super().__init__()
        self.setting = setting
        self.image_codec, self.mask_codec = image_codec.build(), mask_codec.build()
        self.denoiser = setting.denoiser.build(channels, self.image_codec, self.mask_codec)
        if self.image_codec.factor != self.mask_codec.factor:
            raise UserError(f"the codecs shrink by {self.image_codec.factor} and {self.mask_codec.factor}: must agree")
        check_fit(setting.sampler, setting.process)
        latents = self.image_codec.latent, self.mask_codec.latent
        self.coarse = nn.Conv2d(_features(self.denoiser)[0], 1, 1) if setting.coarse else None
        self.presence = Presence(_features(self.denoiser)) if setting.presence else None
        self.null = NullLatent(latents[0]) if setting.drop_condition else None
        self.classifier = setting.classifier.build(*latents) if setting.classifier else None
        self.mask_codec.requires_grad_(False)
        self.image_codec.requires_grad_(False)
        if setting.train_image_codec and hasattr(self.image_codec, "encoder"):
            self.image_codec.encoder.requires_grad_(True)

    def train(self, mode: bool = True) -> "DiffusionSegmenter":
        """The codecs stay in evaluation mode whatever the mode."""
        super().train(mode)
        self.mask_codec.eval()
        self.image_codec.eval()
        return self

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """E‖target − network(z_t ⊕ z_X, t)‖² (Eq. 4 in latent space)."""
        k, setting = self.setting.noise_levels, self.setting
        masks = self.targets(batch)
        targets = len(masks) // len(batch.image)  # of each image: 1, or one a level
        with torch.no_grad():
            z0 = self.mask_codec.encode(masks).repeat_interleave(k // targets, dim=0)
        hidden = batch.noise.uniform(len(batch.image)) < setting.drop_condition if self.null else None
        told = self.condition(batch.image, hidden)
        condition = [c.repeat_interleave(k, dim=0) for c in told]
        t = setting.process.draw_times(batch.noise, len(batch.image), k).to(z0.device)
        epsilon = batch.noise.normal(*z0.shape).to(z0)
        z, clock = setting.process.corrupt(z0, epsilon, t), setting.process.clock(t)
        output = self.denoiser(z, clock, condition).float()
        errors = F.mse_loss(output, setting.process.target(z0, epsilon, t), reduction="none").mean(dim=(1, 2, 3))
        marked = (
            masks.flatten(1).any(dim=1) if self.presence else torch.ones(len(masks), dtype=torch.bool, device=z0.device)
        )
        terms = {"denoising": mean_over_marked(errors, marked.repeat_interleave(k // targets))}
        if setting.dice:
            z0_hat, _ = setting.process.estimate(output[::k], z[::k], t[::k])  # one level an image: decoding is dear
            drawn = self.mask_codec.decode(z0_hat)
            overlap = DiceLoss(smooth_nr=1.0, smooth_dr=1.0, reduction="none")(drawn, masks[::targets]).flatten()
            terms["dice"] = setting.dice * mean_over_marked(overlap, marked[::targets])
        if self.presence is not None:
            terms["presence"] = self.presence.loss(told[1:], marked.float().reshape(-1, targets).mean(dim=1))
        if self.coarse is not None:
            guess = self.coarse(told[1])
            marked = masks.reshape(-1, targets, *masks.shape[-2:]).mean(dim=1, keepdim=True)
            share = F.adaptive_avg_pool2d(marked, guess.shape[-2:])
            terms["coarse"] = setting.coarse * F.binary_cross_entropy_with_logits(guess.float(), share)
        if self.classifier is not None:
            terms["classifier"] = self.classifier.loss(z[::k], clock[::k], self._z_image(batch.image).detach())
        loss = torch.stack(list(terms.values())).sum()
        return {"loss": loss, **{name: term.detach() for name, term in terms.items()}}

    def targets(self, batch: Batch) -> Tensor:
        """The masks to learn, image by image: their readers' consensus, or of each noise level a reader of its own, so that
        an image whose condition is encoded once teaches what several of them drew."""
        target, images = self.setting.target, len(batch.image)
        levels = self.setting.noise_levels if target == "reader" else 1
        choice = stratified(batch.noise, images, levels)
        masks, read_by = batch.truth(), batch.read_by
        if levels > 1:
            masks = masks.repeat_interleave(levels, dim=0)
            read_by = None if read_by is None else read_by.repeat_interleave(levels, dim=0)
        return training_target(masks, target, choice, read_by)

    def _z_image(self, image: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.setting.train_image_codec and torch.is_grad_enabled()):
            return self.image_codec.encode(image)

    def condition(self, image: Tensor, hidden: Tensor | None = None) -> list[Tensor]:
        """What the denoiser is told of the image, nothing in rows that are `hidden` (B,); runs once however many samples
        are drawn."""
        z_image = self._z_image(image)
        if self.null is not None and hidden is not None:
            image, z_image = self.null(image, z_image, hidden)
        return self.denoiser.condition(image, z_image)

    def tell(self, image: Tensor) -> Told:
        """All that the denoiser will need of the images, for as many samples as one likes."""
        setting, guided = self.setting, self.classifier is not None
        blind = None
        if setting.guidance != 1:
            if self.null is None:
                raise UserError("guidance needs a model that was trained with drop_condition above 0")
            blind = self.condition(image, torch.ones(len(image), dtype=torch.bool))
        seen = self.condition(image)
        present = None if self.presence is None else self.presence(seen[1:]).sigmoid()
        return Told(seen, blind, self._z_image(image) if guided else None, present)

    def denoise(self, told: Told, watch: Watch | None = None) -> Denoise:
        """(z_t, t) → (ẑ_0, ε̂) for a sample of each row of what was told, guided as the setting says."""
        setting = self.setting
        denoise = self._asked(told.seen, watch)
        if told.blind is not None:
            denoise = classifier_free(denoise, self._asked(told.blind), setting.guidance)
        if self.classifier is not None and told.z_image is not None and setting.classifier and setting.classifier.scale:
            scale = setting.classifier.scale
            denoise = classifier_guided(denoise, self.classifier, told.z_image, setting.process, scale)
        return denoise

    def _asked(self, condition: list[Tensor], watch: Watch | None = None) -> Denoise:
        process = self.setting.process

        def denoise(z: Tensor, t: float) -> tuple[Tensor, Tensor]:
            if watch is not None:
                watch(1 - t / process.knots(1)[0])
            times = torch.full((len(z),), t, device=z.device)
            return process.estimate(self.denoiser(z, process.clock(times), condition).float(), z, times)

        return denoise

    def begin(self, batch: Batch, n: int, sampler: Sampler | None) -> Told:
        """The images are encoded once, through each of the turns that n samples are spread over."""
        check_fit(sampler or self.setting.sampler, self.setting.process)
        turns = min(self.setting.turns, n)
        return self.tell(torch.cat([quarter_turn(batch.image, k) for k in range(turns)]))

    def masks(
        self, common: Told, batch: Batch, which: range, seed: int, sampler: Sampler | None, watch: Watch | None
    ) -> Tensor:
        """See `Streaming`."""
        turns = [k % self.setting.turns for k in which]
        told, size = common.rows(turns, len(batch.image)), batch.image.shape[-2:]
        noise = SampleNoise(seed, batch.noise_names, len(which), which.start)
        drawn = self._draw(told, noise, size, sampler or self.setting.sampler, watch)
        drawn = drawn.reshape(len(batch.image), len(which), *size)
        if common.present is not None:
            present = common.present.reshape(-1, len(batch.image)).mean(dim=0)  # over the turns
            drawn = drawn * (strata(seed, batch.noise_names, which).to(present) < present[:, None])[..., None, None]
        return torch.stack([quarter_turn_back(drawn[:, i], turn) for i, turn in enumerate(turns)], dim=1)

    def _draw(self, told: Told, noise: SampleNoise, size: torch.Size, sampler: Sampler, watch: Watch | None) -> Tensor:
        """A mask (1, H, W) for each row of what was told."""
        factor, device = self.mask_codec.factor, told.seen[0].device
        start = noise.normal(self.mask_codec.latent, size[0] // factor, size[1] // factor).to(device)
        z = sampler(self.denoise(told, watch), self.setting.process, start, noise)  # type: ignore[arg-type]
        return torch.cat([self.mask_codec.decode(some) for some in z.split(DECODED_AT_ONCE)])


def _features(denoiser: nn.Module) -> tuple[int, ...]:
    """Channels of the features that a denoiser makes of the image, finest first, which stand behind the image latent."""
    widths: tuple[int, ...] | None = getattr(denoiser, "features", None)
    if widths is None:
        raise UserError(f"this needs a denoiser with features of the image, not {type(denoiser).__name__}")
    return widths


SegmenterSetting = LatentDiffusion | OneToOne | ProbUNet
