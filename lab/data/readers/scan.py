"""What lies in a folder of images, with everything that is passed over counted: no file is skipped in silence."""

import os
from collections.abc import Iterable
from pathlib import Path

from lab.errors import InputError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def list_images(folder: str | Path) -> list[str]:
    """Paths of all images below `folder`, sorted by name: what pre-training reads. Raises InputError if there are none."""
    folder = Path(os.path.abspath(folder))
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; expected a folder of images: give another one")
    found = [str(path) for path in sorted(folder.rglob("*")) if is_image(path.name) and path.is_file()]
    if not found:
        raise InputError(f"{folder} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}); give a folder that does")
    return found


def is_image(name: str) -> bool:
    """Whether a file name is that of an image; hidden files (such as macOS's ._0002.jpg) are not."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")


def images_in(folder: Path, notes: list[str]) -> list[str]:
    """Names of the images directly in `folder`, sorted; what else is there is counted in `notes`."""
    images, hidden, folders, others = [], [], [], []
    for entry in os.scandir(folder):
        if entry.is_dir():
            folders.append(entry.name)
        elif entry.name.startswith("."):
            hidden.append(entry.name)
        elif is_image(entry.name):
            images.append(entry.name)
        else:
            others.append(entry.name)
    for names, what in (
        (others, "file(s) that are no image skipped"),
        (hidden, "hidden file(s) skipped"),
        (folders, "sub-folder(s) not looked into"),
    ):
        if names:
            notes.append(f"{folder.name}: {len(names)} {what} ({first(names)})")
    return sorted(images)


def images_below(folder: Path) -> set[str]:
    """Paths of all images below `folder`, relative to it and with forward slashes."""
    found = set()
    for place, _, names in os.walk(folder):
        prefix = os.path.relpath(place, folder).replace(os.sep, "/") + "/"
        prefix = "" if prefix == "./" else prefix
        found.update(prefix + name for name in names if is_image(name))
    return found


def first(names: Iterable[str], count: int = 3) -> str:
    """The first few of sorted names, for a sentence."""
    names = sorted(names)
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")


def contents(folder: Path) -> str:
    """What a folder holds, in a few words, for a sentence."""
    return first((entry.name + ("/" if entry.is_dir() else "") for entry in os.scandir(folder)), 5) or "nothing"
