"""Configs of older formats, brought to the newest one: what was renamed, moved or removed, as tables.

`FORMAT` counts the format of `config.json` (model folders) and `config.yaml` (run folders). It grows by one whenever a
class, a field or a word that they hold is renamed, removed or changes its meaning, and the change is added to this file.
A new field whose default leaves older models as they were needs no new format.

Format 1 had no `format` in config.yaml.
"""

from collections.abc import Mapping
from typing import Any

from manymask.errors import ConfigError

FORMAT = 2
MOST_DEPTH = 50  # settings within settings

# of format 1, by its own names
RENAMED_CLASSES = {
    "Rules": "Budget", "Task": "RunSpec", "Diffusion": "GaussianDiffusion", "Flow": "RectifiedFlow",
}  # fmt: skip
_UNET = {"widths": "channels", "blocks": "blocks_per_level"}
RENAMED_FIELDS: dict[str, dict[str, str]] = {
    "Autoencoder": {"channels": "in_channels", "latent": "latent_channels", "widths": "channels",
                    "blocks": "blocks_per_level", "stem": "patch_size", "quantised": "quantized",
                    "snap": "quantize_on_decode"},
    "VQ": {"codes": "codebook_size", "beta": "commitment_weight", "patience": "revive_after"},
    "LatentDiffusion": {"noise_levels": "noise_levels_per_image", "dice": "dice_weight", "turns": "orientations",
                        "drop_condition": "condition_dropout", "guidance": "guidance_scale"},
    "ConcatUNet": _UNET,
    "SegDiff": _UNET,
    "MedSegDiff": _UNET,
    "PyramidUNet": _UNET | {"encoder": "encoder_channels", "encoder_blocks": "encoder_blocks_per_level"},
    "Pyramid": {"encoder": "encoder_channels", "encoder_blocks": "encoder_blocks_per_level", "width": "head_channels"},
    "PairClassifier": {"widths": "channels"},
    "UNet": {"features": "channels"},
    "UNetPlusPlus": {"features": "channels"},
    "NNUNet": {"filters": "channels"},
    "ProbUNet": {"features": "channels", "encoder": "encoder_channels", "blocks": "encoder_blocks_per_level",
                 "latent": "latent_channels", "beta": "kl_weight"},
    "Task": {"rules": "budget"},
    "Training": {"batch": "batch_size", "clip": "max_grad_norm", "ema": "ema_decay"},
    "Augment": {"turn": "dihedral"},
}  # fmt: skip
# they changed training alone, and were measured to harm it; what each was where it was not in use
REMOVED_FIELDS: dict[tuple[str, str], Any] = {("LatentDiffusion", "coarse"): 0.0, ("Diffusion", "late"): 1.0}
RENAMED_KEYS = {
    "rules": "budget", "cell": "run_id",
    "readers": "raters", "by_readers": "by_raters", "all_readers_marked": "all_raters_marked",
    "turns": "orientations", "turned": "oriented", "without turns": "upright", "spread": "relative_std",
    "dice_all_slots_filled": "dice_all_raters", "dice_unsnapped": "dice_unquantized", "reader_distance": "rater_distance",
    "one_reader_against_the_others": "one_rater_against_the_others", "seconds_an_image": "latency_s",
    "seconds_one_pass": "latency_one_mask_s", "seconds_per_image": "throughput_s_per_image",
}  # fmt: skip
"""Of results (results.json, metrics.json, curves.json and the like)."""
RENAMED_VALUES = {"target": {"reader": "rater"}}


def format_of(config: Mapping[str, Any], place: str) -> int:
    """The format of a config, 1 where it has none; `ConfigError` for one that this version cannot read."""
    found = config.get("format", 1)
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise ConfigError(f"{place}: format {found!r:.40} is no format of manymask")
    if found > FORMAT:
        raise ConfigError(f"{place}: format {found} is newer than this version reads (up to {FORMAT}): update manymask")
    return found


def upgraded(recipe: Any, found: int, place: str, training: bool = False) -> Any:
    """A recipe of format `found` in the words of the newest one.

    Args:
        recipe: as `config.to_dict` wrote it.
        found: its format.
        place: what messages call it.
        training: whether it will be trained on; then a removed field that was in use is a `ConfigError`.
    """
    return _Upgrade(place, training)(recipe) if found < FORMAT else recipe


class _Upgrade:
    """Rewrites nested settings. Parts that a YAML file names twice stay one object, so that none grows by being copied."""

    def __init__(self, place: str, training: bool) -> None:
        self.place = place
        self.training = training
        self.done: dict[int, Any] = {}

    def __call__(self, value: Any, depth: int = 0) -> Any:
        if not isinstance(value, (list, dict)):
            return value
        if id(value) in self.done:
            return self.done[id(value)]
        if depth > MOST_DEPTH:
            raise ConfigError(f"{self.place}: nested too deeply")
        if isinstance(value, list):
            items = self.done[id(value)] = list[Any]()
            items += [self(item, depth + 1) for item in value]
            return items
        fields = self.done[id(value)] = dict[Any, Any]()
        kind = value.get("kind")
        old = kind if isinstance(kind, str) else ""
        names = RENAMED_FIELDS.get(old, {})
        for key, item in value.items():
            if (old, key) in REMOVED_FIELDS:
                self._refuse_if_used(old, key, item)
            else:
                fields[names.get(key, key)] = _word(key, self(item, depth + 1))
        if old in RENAMED_CLASSES:
            fields["kind"] = RENAMED_CLASSES[old]
        return fields

    def _refuse_if_used(self, old: str, key: str, item: Any) -> None:
        if self.training and item != REMOVED_FIELDS[old, key]:
            raise ConfigError(
                f"{self.place}: {old}.{key} = {item!r:.40} was removed: train again without it in a new run folder",
                remedies=("run",),
            )


def _word(key: Any, item: Any) -> Any:
    words = RENAMED_VALUES.get(key, {}) if isinstance(key, str) else {}
    return words.get(item, item) if isinstance(item, str) else item


def upgraded_results(found: Any) -> Any:
    """The contents of a file of results, of any older format, in the words of the newest one."""
    if isinstance(found, dict) and found.get("format", 1) == FORMAT:
        return found
    new = _renamed(found)
    return {"format": FORMAT, **new} if isinstance(new, dict) else new


def _renamed(value: Any) -> Any:
    if isinstance(value, list):
        return [_renamed(item) for item in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("kind"), str):
        return _Upgrade("results", training=False)(value)
    return {RENAMED_KEYS.get(key, key): _renamed(item) for key, item in value.items() if key != "format"}
