"""From crops on disk to training batches, with the published augmentation in the published order.

Resize (bicubic) -> flip -> pad 10 black -> crop back -> erase a black rectangle; values stay 0..255, the model
normalises. The resize is the same every time, so a data set that fits into memory is decoded and resized once; the
rest is random and done at every draw. Legend: N crops, H x W image size.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lab.data.crops import Crops, resize
from lab.data.splits import Split


@dataclass(frozen=True)
class Augmentation:
    """The random part: how often and how much. Defaults are the published ones."""

    flip: float = 0.5  # probability of a mirror image
    padding: int = 10  # black pixels on each side before the crop
    erase: float = 0.5  # probability of an erased rectangle
    erase_area: tuple[float, float] = (0.02, 0.4)  # share of the image
    erase_aspect: float = 0.3  # height / width of the rectangle is uniform between this and its inverse

    def __call__(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """(H, W, 3) uint8 -> a changed copy of the same size; all chance comes from `random`."""
        if random.random() < self.flip:
            image = image[:, ::-1]
        return self._erase(self._shift(image, random), random)

    def _shift(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Pad with black and crop the size back at a random place, without building the padded image."""
        height, width = image.shape[:2]
        down, right = random.integers(-self.padding, self.padding + 1, size=2)
        shifted = np.zeros(image.shape, dtype=image.dtype)
        target = shifted[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)]
        target[:] = image[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
        return shifted

    def _erase(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        if random.random() >= self.erase:
            return image
        height, width = image.shape[:2]
        for _ in range(100):  # the published number of tries to find a rectangle that fits
            area = random.uniform(*self.erase_area) * height * width
            aspect = random.uniform(self.erase_aspect, 1 / self.erase_aspect)
            h, w = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
            if h < height and w < width:
                top, left = random.integers(0, height - h + 1), random.integers(0, width - w + 1)
                image[top : top + h, left : left + w] = 0
                break
        return image


class Draw(NamedTuple):
    """What one step asks for: crops (n,), and at which places (n,) of the whole job's batch they stand."""

    step: int
    crops: np.ndarray
    places: np.ndarray


class TrainingImages(Dataset):
    """The crops of a split, resized and augmented: a `Draw` -> (images (n, 3, H, W) uint8, labels (n,)).

    What chance does to an image follows from seed, step and place in the batch, so it depends neither on the number of
    processes nor on where an interrupted run goes on. Up to `cache_gb` gigabytes of resized crops are kept in memory; a
    larger data set is read from disk at every draw. Unreadable files: see `Crops`.
    """

    def __init__(
        self, split: Split, height: int, width: int, augmentation: Augmentation, seed: int, cache_gb: float = 4.0
    ):
        self.labels = split.labels
        self.crops = Crops(split.path, partial(_resized, height=height, width=width))
        self.augmentation, self.seed = augmentation, seed
        self.cache = None
        if len(split) * height * width * 3 <= cache_gb * 1e9:
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:  # decoding releases the interpreter lock
                images, source = zip(*threads.map(self.crops.__getitem__, range(len(split))), strict=True)
            self.cache, self.source = np.stack(images), np.array(source)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, draw: Draw) -> tuple[Tensor, Tensor]:
        images, sources = [], []
        for crop, place in zip(draw.crops, draw.places, strict=True):
            image, source = self.crops[crop] if self.cache is None else (self.cache[crop], self.source[crop])
            images.append(self.augmentation(image, np.random.default_rng((self.seed, draw.step, int(place)))))
            sources.append(source)
        # (n, H, W, 3) in memory, which is the order of channels_last: nothing is turned
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.from_numpy(self.labels[sources])


def draws(batches: Iterable[np.ndarray], first: int, last: int, rank: int = 0, world_size: int = 1) -> Iterator[Draw]:
    """What a process draws in the steps `first` to `last` - 1 of a stream of whole batches.

    Places are dealt out in turn, as the published code's are to its GPUs: every person is in every process's part.
    """
    for step, batch in enumerate(islice(batches, last)):
        if step >= first:
            places = np.arange(rank, len(batch), world_size)
            yield Draw(step, batch[places], places)


def _resized(image, height: int, width: int) -> np.ndarray:
    return np.asarray(resize(image, height, width))
