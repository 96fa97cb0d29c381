"""Where pre-training takes its images from: files in folders, the store, tar shards, several of these in a row, or some.

A source has a length, `name(i)` for messages, and `read(i)`, the bytes of image i's file. It can be given to other
processes at little cost, and opens files where it reads them: a worker shares none with its parent.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from lab.data.readers.scan import images_below, list_images
from lab.data.store import Store, is_store
from lab.data.tars import Tars
from lab.errors import InputError


class ImageSource(Protocol):
    """What `Files`, `Several`, `Tars` and `Store` have in common."""

    def __len__(self) -> int: ...

    def name(self, number: int) -> str:
        """The path or key of an image."""

    def read(self, number: int) -> bytes:
        """The bytes of its file. Raises OSError if there is none."""


class Files:
    """Image files, in the order of their paths."""

    def __init__(self, paths: Sequence[str | Path]):
        self.paths = np.asarray(paths, dtype=np.str_)  # a list of strings would be copied page by page into each worker

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, number: int) -> str:
        return str(self.paths[number])

    def read(self, number: int) -> bytes:
        with open(self.paths[number], "rb", buffering=0) as file:
            return file.read()


class Several:
    """Sources in a row: the images of the first, then those of the second, and so on."""

    def __init__(self, sources: Sequence[ImageSource]):
        self.sources = list(sources)
        self.ends = np.cumsum([len(source) for source in self.sources])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def name(self, number: int) -> str:
        source, number = self._find(number)
        return source.name(number)

    def read(self, number: int) -> bytes:
        source, number = self._find(number)
        return source.read(number)

    def _find(self, number: int) -> tuple[ImageSource, int]:
        which = int(np.searchsorted(self.ends, number, side="right"))
        return self.sources[which], number - int(self.ends[which]) + len(self.sources[which])


class Some:
    """Some images of a source, by their numbers in it."""

    def __init__(self, source: ImageSource, numbers: np.ndarray):
        self.source, self.numbers = source, np.asarray(numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def name(self, number: int) -> str:
        return self.source.name(int(self.numbers[number]))

    def read(self, number: int) -> bytes:
        return self.source.read(int(self.numbers[number]))


def open_images(*folders: str | Path) -> ImageSource:
    """The images of stores, folders of tar shards and folders of image files, one after the other.

    Image files are searched in all folders below; shards are the .tar files directly in a folder. Raises InputError for
    what cannot be read, and for a folder that holds image files as well as .tar files.
    """
    if not folders:
        raise InputError("no folder of images was given; give a store, a folder of tar shards or one of image files")
    sources = [_open(Path(folder)) for folder in folders]
    return sources[0] if len(sources) == 1 else Several(sources)


def _open(folder: Path) -> ImageSource:
    if is_store(folder):
        return Store(folder)
    shards = sorted(folder.glob("*.tar"))
    if not shards:
        return Files(list_images(folder))
    if images := images_below(folder):
        raise InputError(
            f"{folder} holds {len(images)} image file(s) and {len(shards)} tar archive(s), such as {shards[0].name}; "
            "move one kind elsewhere, so that it is clear which are meant"
        )
    return Tars(shards)
