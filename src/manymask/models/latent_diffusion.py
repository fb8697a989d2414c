"""The latent diffusion segmenter (Section III-C): a conditional diffusion of mask latents."""

from dataclasses import dataclass

import torch
from torch import Tensor

from manymask.data.case import Batch
from manymask.data.dihedral import dihedral, dihedral_inverse
from manymask.data.raters import Target, training_target
from manymask.diffusion.guidance import NullLatent, PairClassifier, classifier_free, classifier_guided
from manymask.diffusion.process import GaussianDiffusion, Process, stratified
from manymask.diffusion.samplers import DDIM, Denoise, NoiseSource, Sampler, check_fit
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import ConfigError
from manymask.models.autoencoder import Codec, CodecSetting
from manymask.models.auxiliary import AuxiliaryHead, blend, check_share
from manymask.models.base import MaskSampler, StepCallback
from manymask.models.conditioning import Conditioning, ImageTraits, feature_channels
from manymask.models.denoisers import ConcatUNet, Denoiser
from manymask.models.noisy_latents import NoisyLatents
from manymask.models.presence import Presence, mean_marked_mask
from manymask.models.sample_noise import noise_of
from manymask.nn.losses import Loss
from manymask.rng import strata

DECODED_AT_ONCE = 16  # masks; the decoder's feature maps are the largest of all


@dataclass(frozen=True)
class LatentDiffusion:
    """The paper's segmenter (Section III-C): a conditional diffusion of mask latents.

    Attributes:
        denoiser: the network that predicts x₀, ε or v.
        process: the forward process.
        sampler: the default reverse process when masks are drawn.
        target: which mask is learnt where there are several raters: their consensus, or one at random.
        noise_levels_per_image: (t, ε) pairs per image and step; the image is encoded once and shared. With
            `target="rater"`, each level is paired with a different rater.
        train_image_codec: whether the image encoder, which starts from the codec, is trained too.
        train_mask_codec: whether the mask codec, which starts from its own stage, is trained too: encoder, decoder and
            denoiser end to end (LDSeg). Its latents must be continuous. With x₀-prediction they soon show through any
            noise, and the denoiser no longer needs the image (docs/results/changes).
        dice_weight: weight of a Dice loss on the decoded x̂₀, which favours one mask over the mean of many.
        estimate_weight: weight of the mean absolute error of x̂₀, with which one step draws (SDSeg, Lin et al. 2024).
        presence: whether p(anything is marked) is learnt separately. The diffusion then learns marked masks only, and
            stratified draws decide which samples are empty (see `presence.py`).
        presence_shift: what is taken off the logit of p in drawing; more of it draws less where nothing is, and misses more.
        auxiliary: loss of an auxiliary mask head on the image features, whose prediction the denoiser receives (see
            `auxiliary.py`); None for no head.
        auxiliary_weight: weight of that loss.
        head_share: share of that head's map in the probabilities of each drawn mask (see `auxiliary.py`).
        orientations: over how many of the eight flips and quarter turns samples are spread by default; 1 uses the image
            as it is. Each orientation encodes the image once more.
        condition_dropout: share of images hidden in training, which `guidance_scale` ≠ 1 requires.
        guidance_scale: default scale of classifier-free guidance; 1 is unguided.
        classifier: a classifier trained alongside, whose own scale guides sampling (see `guidance.py`).
    """

    denoiser: Denoiser = ConcatUNet()
    process: Process = GaussianDiffusion()
    sampler: Sampler = DDIM()
    target: Target = "consensus"
    noise_levels_per_image: int = 1
    train_image_codec: bool = False
    train_mask_codec: bool = False
    dice_weight: float = 0.0
    estimate_weight: float = 0.0
    presence: bool = False
    presence_shift: float = 0.0
    auxiliary: Loss | None = None
    auxiliary_weight: float = 1.0
    head_share: float = 0.0
    orientations: int = 1
    condition_dropout: float = 0.0
    guidance_scale: float = 1.0
    classifier: PairClassifier | None = None

    @property
    def sampling(self) -> SamplingConfig:
        """The default sampling of the model."""
        scale = self.guidance_scale
        if self.classifier is not None and not self.condition_dropout:
            scale = self.classifier.scale
        return SamplingConfig(self.sampler, self.sampler.steps, self.orientations, scale, self.head_share)

    def build(self, channels: int, image_codec: CodecSetting, mask_codec: CodecSetting) -> "DiffusionSegmenter":
        """The untrained segmenter of images with so many channels."""
        return DiffusionSegmenter(self, channels, image_codec, mask_codec)


class DiffusionSegmenter(MaskSampler):
    """See `LatentDiffusion`.

    Its modules are `image_codec`, `mask_codec` (frozen) and `denoiser`. Those for guidance are `null` and `classifier`, that
    for empty masks is `presence`, the mask head is `auxiliary`; each is None where the setting does not need it.

    Args:
        setting: its configuration.
        channels: image channels.
        image_codec: settings of the image codec.
        mask_codec: settings of the mask codec, whose f must be that of the image codec.

    Attributes:
        setting: its configuration.

    Raises:
        ConfigError: codecs, sampler or denoiser do not fit together.
    """

    setting: LatentDiffusion

    def __init__(
        self, setting: LatentDiffusion, channels: int, image_codec: CodecSetting, mask_codec: CodecSetting
    ) -> None:
        super().__init__()
        self.setting = setting
        self.image_codec = image_codec.build()
        self.mask_codec = mask_codec.build()
        self.denoiser = setting.denoiser.build(channels, self.image_codec, self.mask_codec)
        if self.image_codec.factor != self.mask_codec.factor:
            raise ConfigError(
                f"the codecs shrink by {self.image_codec.factor} and {self.mask_codec.factor}: must agree"
            )
        check_fit(setting.sampler, setting.process)
        image_latent, mask_latent = self.image_codec.latent_channels, self.mask_codec.latent_channels
        self.presence = Presence(feature_channels(self.denoiser), setting.presence_shift) if setting.presence else None
        self.auxiliary = AuxiliaryHead.on(self.denoiser, self.mask_codec) if setting.auxiliary else None
        check_share(setting.head_share, self.auxiliary)
        self.null = NullLatent(image_latent) if setting.condition_dropout else None
        self.classifier = setting.classifier.build(image_latent, mask_latent) if setting.classifier else None
        self.mask_codec.requires_grad_(False)
        self.image_codec.requires_grad_(False)
        if setting.train_image_codec and hasattr(self.image_codec, "encoder"):
            self.image_codec.encoder.requires_grad_(True)
        if setting.train_mask_codec:
            if not isinstance(self.mask_codec, Codec) or self.mask_codec.setting.quantized:
                raise ConfigError("train_mask_codec: needs a mask codec with continuous latents (quantized: false)")
            self.mask_codec.encoder.requires_grad_(True)
            self.mask_codec.decoder.requires_grad_(True)
        self.drawing_kept = False

    def keep_drawing(self) -> None:
        """Freeze all but the presence head, so that only whether there is anything is learnt, and outlines stay the same.

        Raises:
            ConfigError: the setting has no presence.
        """
        if self.presence is None:
            raise ConfigError("part: this recipe has no presence to train (`presence` of its segmenter)")
        self.requires_grad_(False)
        self.presence.requires_grad_(True)
        self.drawing_kept = True

    def train(self, mode: bool = True) -> "DiffusionSegmenter":
        """Set the mode; both codecs stay in evaluation mode."""
        super().train(mode)
        self.mask_codec.eval()
        self.image_codec.eval()
        return self

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """E‖target − network(z_t ⊕ z_X, t)‖² (Eq. 4 in latent space) and the terms that the setting adds.

        Args:
            batch: images (B, C, H, W) and masks (B, R, H, W) in [0, 1].

        Returns:
            `loss`, a scalar, and each of its terms, detached.
        """
        setting = self.setting
        masks = self.targets(batch)
        if self.drawing_kept and self.presence is not None:
            loss = self.presence.loss(self.condition(batch.image)[1:], self._marked(masks).float())
            return {"loss": loss, "presence": loss.detach()}
        per_image = len(masks) // len(batch.image)  # masks of each image: 1, or one per noise level
        hidden = batch.noise.uniform(len(batch.image)) < setting.condition_dropout if self.null else None
        condition, logits = self._encode(batch.image, hidden)
        levels = setting.noise_levels_per_image
        z0, reconstruction = self._latents(masks)
        z0 = z0.repeat_interleave(levels // per_image, dim=0)
        noisy = NoisyLatents.draw(setting.process, z0, levels, batch.noise)
        output = self._network(noisy.z, noisy.t, [c.repeat_interleave(levels, dim=0) for c in condition])
        marked = self._marked(masks)
        terms = {"denoising": noisy.denoising_loss(output, marked)}
        if setting.dice_weight:
            first = slice(None, None, per_image)
            dice = noisy.dice_loss(output, self.mask_codec.decode, masks[first], marked[first])
            terms["dice"] = setting.dice_weight * dice
        if setting.estimate_weight:
            terms["estimate"] = setting.estimate_weight * noisy.estimate_loss(output, marked)
        if reconstruction is not None:
            terms["mask_codec"] = reconstruction
        if logits is not None:
            terms["auxiliary"] = setting.auxiliary_weight * self._auxiliary_loss(logits, masks, marked)
        if self.presence is not None:
            terms["presence"] = self.presence.loss(condition[1:], marked.float())
        if self.classifier is not None:
            terms["classifier"] = self._classifier_loss(noisy, batch.image)
        loss = torch.stack(list(terms.values())).sum()
        return {"loss": loss, **{name: term.detach() for name, term in terms.items()}}

    def targets(self, batch: Batch) -> Tensor:
        """The masks to learn.

        They are the consensus of each image's raters, or a different rater for each noise level, so that one encoded
        image is paired with several raters.

        Args:
            batch: images (B, C, H, W) and masks (B, R, H, W).

        Returns:
            (B, 1, H, W), or (B · noise levels, 1, H, W) image by image.
        """
        target = self.setting.target
        levels = self.setting.noise_levels_per_image if target == "rater" else 1
        choice = stratified(batch.noise, len(batch.image), levels)
        masks = batch.truth()
        read_by = batch.read_by
        if levels > 1:
            masks = masks.repeat_interleave(levels, dim=0)
            read_by = None if read_by is None else read_by.repeat_interleave(levels, dim=0)
        return training_target(masks, target, choice, read_by)

    def _latents(self, masks: Tensor) -> tuple[Tensor, Tensor | None]:
        """The latents of masks and, if the mask codec is trained too, the loss of its reconstruction."""
        if self.setting.train_mask_codec:
            return self.mask_codec.encode_along(masks)  # type: ignore[operator]
        with torch.no_grad():
            return self.mask_codec.encode(masks), None

    def _network(self, z: Tensor, t: Tensor, condition: list[Tensor]) -> Tensor:
        """The denoiser's raw output, float32, at times t (B,) of the process."""
        output: Tensor = self.denoiser(z, self.setting.process.time_input(t), condition)
        return output.float()

    def _marked(self, masks: Tensor) -> Tensor:
        """Which of masks (N, 1, H, W) the diffusion learns, (N,) bool; all without a presence head."""
        if self.presence is None:
            return torch.ones(len(masks), dtype=torch.bool, device=masks.device)
        return masks.flatten(1).any(dim=1)

    def _auxiliary_loss(self, logits: Tensor, masks: Tensor, marked: Tensor) -> Tensor:
        """Against the mean of each image's marked masks, or nothing if none is marked."""
        assert self.setting.auxiliary is not None
        return self.setting.auxiliary(logits.float(), mean_marked_mask(masks, marked, len(logits)))

    def _classifier_loss(self, noisy: NoisyLatents, image: Tensor) -> Tensor:
        assert self.classifier is not None
        k = self.setting.noise_levels_per_image
        time_input = self.setting.process.time_input(noisy.t)[::k]
        return self.classifier.loss(noisy.z[::k], time_input, self._image_latent(image).detach())

    def _image_latent(self, image: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.setting.train_image_codec and torch.is_grad_enabled()):
            return self.image_codec.encode(image)

    def condition(self, image: Tensor, hidden: Tensor | None = None) -> list[Tensor]:
        """Encode images for the denoiser.

        Args:
            image: (B, C, H, W) in [0, 1].
            hidden: (B,) bool, the rows that are replaced by "no image".

        Returns:
            Condition maps of the denoiser, the image latent (B, c, h, w) or its encoding first.
        """
        return self._encode(image, hidden)[0]

    def _encode(self, image: Tensor, hidden: Tensor | None) -> tuple[list[Tensor], Tensor | None]:
        """The condition maps and, with an auxiliary head, its logits (B, 1, H, W)."""
        image_latent = self._image_latent(image)
        if self.null is not None and hidden is not None:
            image, image_latent = self.null(image, image_latent, hidden)
        if self.auxiliary is None:
            return self.denoiser.condition(image, image_latent), None
        finer, features = self.denoiser.encode(image)  # type: ignore[operator]
        logits = self.auxiliary(finer, features[0])
        with torch.no_grad():
            z_mask = self.mask_codec.encode(self._probability(logits))
        return [image_latent, self.auxiliary.inform(features[0], z_mask), *features[1:]], logits

    def _probability(self, logits: Tensor) -> Tensor:
        """The auxiliary head's map, (B, 1, H, W) in [0, 1]."""
        result: Tensor = self.setting.auxiliary.probability(logits.float())  # type: ignore[union-attr]
        return result

    def encode_condition(self, image: Tensor, sampling: SamplingConfig | None = None) -> Conditioning:
        """Encode all that the denoiser needs of images, for any number of samples.

        Args:
            image: (B, C, H, W) in [0, 1].
            sampling: how masks are drawn; the model's default if None.

        Returns:
            The conditioning of B rows.
        """
        resolved = self.resolve(sampling)
        uncond = None
        if self.null is not None and resolved.guidance_scale != 1:
            uncond = self.condition(image, torch.ones(1, dtype=torch.bool))  # of all rows
        cond, logits = self._encode(image, None)
        presence = None if self.presence is None else self.presence.probability(cond[1:])
        image_latent = self._image_latent(image) if self.classifier is not None else None
        head = self._probability(logits).squeeze(1) if logits is not None and resolved.head_share else None
        return Conditioning(cond, uncond, image_latent, presence, head)

    def resolve(self, sampling: SamplingConfig | None = None) -> SamplingConfig:
        """See `MaskSampler`."""
        resolved = (sampling or SamplingConfig()).resolved(self.setting.sampling, self.setting.process)
        unguided = self.null is None and self.classifier is None
        if unguided and resolved.guidance_scale != 1:
            raise ConfigError(
                "guidance needs a model that was trained with condition_dropout above 0, or with a classifier"
            )
        check_share(resolved.head_share, self.auxiliary)
        return resolved

    def denoise(
        self, conditioning: Conditioning, sampling: SamplingConfig | None = None, callback: StepCallback | None = None
    ) -> Denoise:
        """The denoising function that a sampler calls, with guidance.

        Args:
            conditioning: one row per sample.
            sampling: how masks are drawn; the model's default if None.
            callback: called before each network pass.

        Returns:
            A function (z_t, t) → (ẑ_0, ε̂), with latents (rows, c, h, w).
        """
        scale = self.resolve(sampling).guidance_scale
        denoise = self._denoise_fn(conditioning.cond, callback)
        if self.null is not None:
            if conditioning.uncond is not None:
                denoise = classifier_free(denoise, self._denoise_fn(conditioning.uncond), scale)  # type: ignore[arg-type]
            scale = self.setting.classifier.scale if self.setting.classifier else None
        if self.classifier is not None and conditioning.image_latent is not None and scale:
            denoise = classifier_guided(
                denoise, self.classifier, conditioning.image_latent, self.setting.process, scale
            )
        return denoise

    def _denoise_fn(self, condition: list[Tensor], callback: StepCallback | None = None) -> Denoise:
        process = self.setting.process

        def denoise(z: Tensor, t: float) -> tuple[Tensor, Tensor]:
            if callback is not None:
                callback(1 - t / process.timesteps(1)[0])
            times = torch.full((1,), t, device=z.device).expand(z.shape[0])
            return process.to_x0_eps(self._network(z, times, condition), z, times)

        return denoise

    def prepare(self, batch: Batch, n: int, sampling: SamplingConfig) -> Conditioning:
        """Encode the images once in each orientation that n samples are spread over; see `MaskSampler`."""
        orientations = min(sampling.orientations or 1, n)
        return self.encode_condition(torch.cat([dihedral(batch.image, k) for k in range(orientations)]), sampling)

    def traits(self, common: Conditioning, images: int) -> ImageTraits:
        """See `MaskSampler`; the features are those of the denoiser."""
        return common.traits(images)

    def sample(
        self,
        common: Conditioning,
        batch: Batch,
        which: range,
        seed: int,
        sampling: SamplingConfig,
        callback: StepCallback | None = None,
    ) -> Tensor:
        """See `MaskSampler`."""
        orientations = [k % (sampling.orientations or 1) for k in which]
        images = len(batch.image)
        size = batch.image.shape[-2:]
        noise = noise_of(batch, seed, which, orientations)
        rows = common.rows(orientations, images)
        drawn = blend(self._draw(rows, noise, size, sampling, callback), rows.head, sampling.head_share)
        drawn = drawn.reshape(images, len(which), *size)
        if common.presence is not None:
            present = common.presence.reshape(-1, images).mean(dim=0)  # over the orientations
            drawn = drawn * (strata(seed, batch.noise_names, which).to(present) < present[:, None])[..., None, None]
        return torch.stack([dihedral_inverse(drawn[:, i], k) for i, k in enumerate(orientations)], dim=1)

    def _draw(
        self,
        conditioning: Conditioning,
        noise: NoiseSource,
        size: torch.Size,
        sampling: SamplingConfig,
        callback: StepCallback | None,
    ) -> Tensor:
        """One mask (1, H, W) per row of the conditioning."""
        height, width = (side // self.mask_codec.factor for side in size)
        start = noise.normal(self.mask_codec.latent_channels, height, width).to(conditioning.cond[0].device)
        denoise = self.denoise(conditioning, sampling, callback)
        z = sampling.sampler(denoise, self.setting.process, start, noise)  # type: ignore[operator, misc]
        return torch.cat([self.mask_codec.decode(some) for some in z.split(DECODED_AT_ONCE)])
