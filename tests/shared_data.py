"""Names and split files of the real data sets in ../shared, where they are; no image of them is needed or copied."""

import os
import tarfile
import tempfile
from functools import cache
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not (SHARED / "luperson-splits" / "splits.tar.xz").is_file(), reason=f"no name lists and split files at {SHARED}"
)


@cache
def name_list(name: str) -> tuple[str, ...]:
    """Lines of a file in file-name-lists, such as "Market1501_query"."""
    return tuple((SHARED / "file-name-lists" / f"{name}.txt").read_text().split())


@cache
def _archive() -> dict[str, str]:
    with tarfile.open(SHARED / "luperson-splits" / "splits.tar.xz") as archive:
        files = [member for member in archive if member.isfile()]
        return {member.name.removeprefix("./"): archive.extractfile(member).read().decode() for member in files}


def split_file(data: str, kind: str, ratio: float) -> str:
    """Text of LUPerson's split file, such as ("market1501", "ims", 0.1); line ends are kept as they are."""
    return _archive()[f"{data}/few_{kind}/used_{kind}_{ratio:.2f}.txt"]


def train_names(data: str) -> list[str]:
    """File names of the whole training half, which used_ims_1.00.txt lists."""
    return [line.split(";")[0] for line in split_file(data, "ims", 1.0).splitlines()]


def touch(folder: Path, names) -> None:
    """Empty files: readers look at names only."""
    os.makedirs(folder, exist_ok=True)
    for name in names:
        os.close(os.open(f"{folder}/{name}", os.O_CREAT | os.O_WRONLY))


def in_memory() -> tempfile.TemporaryDirectory:
    """A folder for tens of thousands of empty files, in memory where the system has such a place: disks are slow at it."""
    return tempfile.TemporaryDirectory(prefix="lab-names-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
