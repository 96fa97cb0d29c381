"""Pixel statistics: every model of the lab takes RGB images 0..255 and normalises them itself, once.

Mean and std are buffers, so they travel in the checkpoint. Legend: B images in a batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lab.errors import InputError

# Of LUPerson, as pre-training used them (released transform.py). Units of all statistics: 0..255, order R, G, B.
LUPERSON_MEAN = (0.3525 * 255, 0.3106 * 255, 0.3140 * 255)
LUPERSON_STD = (0.2660 * 255, 0.2522 * 255, 0.2505 * 255)
# Of LUPerson, as the published fine-tuning configuration has them: its red std is 63.872 where pre-training used 67.83.
FINETUNE_MEAN = (89.896, 79.200, 80.073)
FINETUNE_STD = (63.872, 64.305, 63.839)
IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
ALIKE = 6.0  # statistics of one data set that were measured twice differ by less (LUPerson's red std: by 3.96)


def register_pixel_statistics(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
    """Give `model` the buffers pixel_mean and pixel_std (1, 3, 1, 1), in units of 0..255."""
    model.register_buffer("pixel_mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
    model.register_buffer("pixel_std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))


def normalise(model: nn.Module, images: Tensor) -> Tensor:
    """(B, 3, H, W) RGB 0..255 -> zero mean and unit deviation in the model's own statistics."""
    return (images.float() - model.pixel_mean) / model.pixel_std


def at_least_float32(values: Tensor) -> Tensor:
    """Leave mixed precision: 16-bit floats become 32-bit ones, where sums and logarithms need it; others stay."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def check_pixel_statistics(mean: Tensor, std: Tensor, source: str) -> None:
    """Raise InputError for statistics of a file that say that it was trained on other images than the lab feeds.

    That is: not three channels, not in 0..255, or in the order B, G, R (OpenCV, Caffe).
    """
    mean, std = mean.flatten().double().tolist(), std.flatten().double().tolist()
    if not len(mean) == len(std) == 3:
        raise InputError(
            f"{source} has pixel statistics of {len(mean)} and {len(std)} channels; expected 3 (RGB): get another file"
        )
    found = f"mean {_shown(mean)}, std {_shown(std)}"
    unit_range = max(mean) <= 1.5 and max(std) <= 1.5 and any(mean)
    if unit_range or not min(std) > 0 or not max(mean) <= 255:
        raise InputError(
            f"{source} has pixel statistics out of range ({found}); expected them in units of 0..255: "
            "multiply them by 255 if they are in 0..1"
        )
    known = (LUPERSON_MEAN, FINETUNE_MEAN, IMAGENET_MEAN)
    if any(_distance(mean[::-1], one) < 1 < _distance(mean, one) for one in known):
        raise InputError(
            f"{source} has pixel statistics in the order B, G, R ({found}), so it was trained on BGR images and the lab "
            "gives RGB: turn its first layer round with `lab convert … --bgr`"
        )


def shown_statistics(model: nn.Module) -> str:
    """The pixel statistics of a model in a line, for the user to see."""
    mean, std = (_shown(values.flatten().tolist()) for values in (model.pixel_mean, model.pixel_std))
    return f"pixel mean {mean}; std {std}"


def alike(mean: Tensor, std: Tensor, other_mean: Sequence[float], other_std: Sequence[float]) -> bool:
    """Whether two sets of statistics describe the same kind of images, up to how they were measured."""
    pairs = ((mean.flatten().tolist(), other_mean), (std.flatten().tolist(), other_std))
    return all(_distance(one, other) < ALIKE for one, other in pairs)


def _distance(one: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def _shown(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)
