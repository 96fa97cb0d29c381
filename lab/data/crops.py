"""How a stored crop becomes a tensor, and what happens when it cannot be read."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as F

from lab.data.images import Files, ImageSource
from lab.data.jpeg import read_image
from lab.errors import InputError


def to_tensor(image: Image.Image | np.ndarray) -> Tensor:
    """RGB picture or pixels (H, W, 3) -> (3, H, W) uint8; RGBA -> (4, H, W)."""
    pixels = np.asarray(image).transpose(2, 0, 1)
    return torch.from_numpy(pixels.copy())  # numpy turns the axes three times as fast as torch


def resize(image: Image.Image, height: int, width: int) -> Image.Image:
    """Bicubic resize on the picture, as the published fine-tuning and test transforms do (antialiased)."""
    return F.resize(image, [height, width], interpolation=F.InterpolationMode.BICUBIC, antialias=True)


class Crops(Dataset):
    """Crops with a policy for those that cannot be read: named, counted, replaced, and too many are an error.

    `source` is an image source or a list of paths. Item i is `(transform(read(bytes of the file)), i)`, where `read`
    makes a picture (`read_image`) or, four times as fast, an array of pixels (`decode`), and raises OSError for what it
    cannot read. Such a crop is replaced by the next readable one (that one's index is returned), so that a batch keeps
    its size; `unreadable` holds the names met by this process. More than `max_unreadable` of them (a share of the
    crops, at least one) raise an InputError that names them. With `replace=False`, which evaluation uses, the first
    unreadable crop is the error: a missing picture there would change the result.
    """

    def __init__(
        self,
        source: ImageSource | Sequence[str],
        transform: Callable[..., object],
        max_unreadable: float = 0.01,
        replace: bool = True,
        read: Callable[[bytes], Image.Image | np.ndarray] = read_image,
    ):
        if not len(source):
            raise InputError("there is no crop to read; expected at least one")
        self.source = source if hasattr(source, "read") else Files(source)
        self.transform = transform
        self.limit = max(1, int(max_unreadable * len(source)))
        self.replace = replace
        self.read = read
        self.unreadable: dict[str, str] = {}  # name -> reason
        self.broken: set[int] = set()  # their positions

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int):
        for offset in range(len(self)):
            position = (int(index) + offset) % len(self)
            if position in self.broken:
                continue
            try:
                image = self.read(self.source.read(position))
            except OSError as error:
                self._note(position, error)
                continue
            return self.transform(image), position
        raise InputError(
            f"none of the {len(self)} crops can be read, the first is {self.source.name(0)}; check where they come from"
        )

    def _note(self, position: int, error: OSError) -> None:
        name = self.source.name(position)
        self.unreadable[name] = str(error)
        self.broken.add(position)
        if not self.replace:
            raise InputError(
                f"{name} cannot be read ({error}); replace the file, or take it out of the list"
            ) from error
        if len(self.unreadable) > self.limit:
            names, reason = ", ".join(list(self.unreadable)[:3]), next(iter(self.unreadable.values()))
            raise InputError(
                f"{len(self.unreadable)} of {len(self)} crops cannot be read (first: {names}: {reason}); at most "
                f"{self.limit} are tolerated: mend or remove these files"
            ) from error
