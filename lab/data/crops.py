"""How a crop on disk becomes a tensor, and what happens when it cannot be read."""

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as F

from lab.errors import InputError

Image.MAX_IMAGE_PIXELS = 64_000_000  # a crop is small: anything larger is refused by Pillow as a decompression bomb


def read_image(source: str | Path | bytes, cut_out: bool = False) -> Image.Image:
    """Decode a picture into RGB, turned the way its EXIF note says; grey, palette and CMYK files become RGB too.

    `source` is a path or the file's bytes. A `cut_out` becomes RGBA, its alpha says where the person is. Raises
    OSError for a file that is missing, truncated, no picture, or that was to be a cut-out and has no alpha.
    """
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(stream) as image:
            if cut_out and "A" not in image.getbands():
                raise OSError("it has no alpha channel that says where the person is")
            return ImageOps.exif_transpose(image).convert("RGBA" if cut_out else "RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError, IndexError) as error:
        raise OSError(f"not a readable picture: {error}") from error


def to_tensor(image: Image.Image) -> Tensor:
    """RGB picture -> (3, H, W) uint8; RGBA -> (4, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def resize(image: Image.Image, height: int, width: int) -> Image.Image:
    """Bicubic resize on the picture, as the published fine-tuning and test transforms do (antialiased)."""
    return F.resize(image, [height, width], interpolation=F.InterpolationMode.BICUBIC, antialias=True)


def find_unreadable(paths: Iterable[str]) -> dict[str, str]:
    """Decode every picture and return those that cannot be read, path -> reason."""
    unreadable = {}
    for path in paths:
        try:
            read_image(path)
        except OSError as error:
            unreadable[str(path)] = str(error)
    return unreadable


class Crops(Dataset):
    """Crops with a policy for files that cannot be read: named, counted, replaced, and too many are an error.

    Item i is `(transform(picture), i)`. An unreadable file is replaced by the next readable one (its own index is
    returned), so that a batch keeps its size; `unreadable` holds the names met by this process. More than
    `max_unreadable` of them (a share of the crops, at least one file) raise an InputError that names them. With
    `replace=False`, which evaluation uses, the first unreadable file is the error: a missing picture there would
    change the result. With `cut_out` pictures are RGBA, and a file without alpha counts as unreadable.
    """

    def __init__(
        self,
        paths: Sequence[str],
        transform: Callable[[Image.Image], object],
        max_unreadable: float = 0.01,
        replace: bool = True,
        cut_out: bool = False,
    ):
        if not len(paths):
            raise InputError("there is no crop to read; expected at least one")
        self.paths = np.asarray(paths, dtype=np.str_)
        self.transform = transform
        self.limit = max(1, int(max_unreadable * len(paths)))
        self.replace = replace
        self.cut_out = cut_out
        self.unreadable: dict[str, str] = {}  # path -> reason

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int):
        for offset in range(len(self)):
            position = (index + offset) % len(self)
            path = str(self.paths[position])
            if path in self.unreadable:
                continue
            try:
                image = read_image(path, self.cut_out)
            except OSError as error:
                self._note(path, error)
                continue
            return self.transform(image), position
        raise InputError(f"none of the {len(self)} crops can be read, the first is {self.paths[0]}; check the folder")

    def _note(self, path: str, error: OSError) -> None:
        self.unreadable[path] = str(error)
        if not self.replace:
            raise InputError(
                f"{path} cannot be read ({error}); replace the file, or take it out of the list"
            ) from error
        if len(self.unreadable) > self.limit:
            names, reason = ", ".join(list(self.unreadable)[:3]), next(iter(self.unreadable.values()))
            raise InputError(
                f"{len(self.unreadable)} of {len(self)} crops cannot be read (first: {names}: {reason}); at most "
                f"{self.limit} are tolerated: mend or remove these files"
            ) from error
