"""What a random sample of images says about all of them: their shapes and colours. Legend: S images in the sample."""

from dataclasses import dataclass

import numpy as np

from lab.data.importing import Source
from lab.data.jpeg import decode


@dataclass(frozen=True)
class Spread:
    """The smallest, the median and the largest of some numbers."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, values) -> "Spread":
        return cls(float(np.min(values)), float(np.median(values)), float(np.max(values)))


@dataclass(frozen=True)
class Sample:
    """What S images drawn at random say; the shapes and statistics are None if none of them could be decoded.

    `mean` and `std` of R, G and B, 0 to 1, are those of all pixels together, each image weighing as much as any other.
    """

    images: int  # that could be decoded
    unreadable: tuple[str, ...]  # keys or paths
    height: Spread | None = None  # pixels
    width: Spread | None = None  # pixels
    aspect: Spread | None = None  # height / width
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    shapes: tuple[tuple[int, int], ...] = ()  # (height, width) of each


def look_at(found: Source, sample: int, seed: int) -> Sample:
    """Decode `sample` images drawn by `seed` (all, if there are fewer): their shapes, mean and std."""
    total = len(found.keys)
    drawn = np.sort(np.random.default_rng(seed).choice(total, min(sample, total), replace=False))
    shapes, unreadable, share = [], [], np.zeros((3, 256))  # of each value 0..255 in each channel
    for number in drawn.tolist():
        try:
            rgb = decode(found.read(number))
        except OSError:
            unreadable.append(found.name(number))
            continue
        shapes.append(rgb.shape[:2])
        for channel in range(3):
            share[channel] += np.bincount(rgb[..., channel].ravel(), minlength=256) / rgb[..., channel].size
    if not shapes:
        return Sample(0, tuple(unreadable))
    height, width = np.array(shapes).T
    share, values = share / len(shapes), np.arange(256) / 255
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
    return Sample(
        len(shapes),
        tuple(unreadable),
        Spread.of(height),
        Spread.of(width),
        Spread.of(height / width),
        tuple(mean.tolist()),
        tuple(std.tolist()),
        tuple(shapes),
    )
