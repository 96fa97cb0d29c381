"""The original cuhk-03.mat (MATLAB 7.3, that is HDF5) as PNG files, those of the new protocol's index file or all.

In the file, `labeled` and `detected` are five references, one per pair of cameras; each leads to a table of references,
10 image numbers x people as h5py sees it (MATLAB has people x 10), and each of those to an image 3 x width x height, or
to an empty cell. Image numbers 1-5 are the first view, 6-10 the second. The index file gives a label to each image, which
it calls by pair, person, view and number: 1_001_2_06.png. (`cuhk03_classic` unpacks all images and `testsets`.)
"""

import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lab.errors import InputError

LISTED = re.compile(r"^([1-9])_0*([1-9]\d*)_([12])_0*([1-9]\d*)\.png$")
PLACES = ("", "cuhk03_release")  # the released archive unpacks to cuhk03_release/
NUMBERS = 10  # images of a person, at most: 1-5 are the first view, 6-10 the second
PARTS = {"train_idx": "bounding_box_train", "query_idx": "query", "gallery_idx": "bounding_box_test"}


@dataclass(frozen=True)
class Protocol:
    """The index file: `names` and `labels` (N,) of all images, and for each folder the positions (from 0) it takes."""

    file: Path
    names: list[str]
    labels: np.ndarray
    parts: dict[str, np.ndarray]


def unpack(images: Path, index: Path, kind: str, folder: Path) -> None:
    """Write `folder` (labeled/ or detected/) in Market-1501's layout; it appears when it is whole, or not at all.

    Names are those of the published copy, LABEL_cVIEW_POSITION.png, where the position in the list counts from 1.
    Raises InputError for files that do not fit together, a place that cannot be written, and where h5py is missing.
    """
    protocol = read_protocol(index)
    with open_boxes(images, kind) as file, appearing(folder, "query") as temporary:
        _write_images(file, images, protocol, kind, temporary)


def read_protocol(index: Path) -> Protocol:
    """The new protocol's index file: train_idx, query_idx, gallery_idx (from 1), labels and filelist."""
    from scipy.io import loadmat

    try:
        content = loadmat(index)
        names = [str(np.ravel(cell)[0]) for cell in np.ravel(content["filelist"])]
        labels = np.ravel(content["labels"]).astype(np.int64)
        parts = {folder: np.ravel(content[key]).astype(np.int64) - 1 for key, folder in PARTS.items()}
    except (OSError, KeyError, ValueError, IndexError, NotImplementedError) as error:
        raise InputError(
            f"{index} cannot be read ({error}); expected the new protocol's index file with train_idx, query_idx, "
            "gallery_idx, labels and filelist: fetch it again"
        ) from error
    if len(names) != len(labels) or any(not len(at) or at.min() < 0 or at.max() >= len(names) for at in parts.values()):
        raise InputError(
            f"{index} lists {len(names)} names, {len(labels)} labels, and positions outside them or none; expected one "
            "label a name and positions from 1: fetch it again"
        )
    return Protocol(index, names, labels, parts)


def open_boxes(images: Path, kind: str):
    """cuhk-03.mat as an open HDF5 file that has the boxes of this kind."""
    try:
        import h5py
    except ImportError as error:
        raise InputError(
            f"{images} is an HDF5 file and the package h5py is not installed; install it with `pip install h5py`"
        ) from error
    try:
        file = h5py.File(images, "r")
    except OSError as error:
        raise InputError(
            f"{images} cannot be read as a MATLAB 7.3 (HDF5) file ({str(error)[:120]}); expected the released "
            "cuhk-03.mat: fetch it again"
        ) from error
    if kind not in file:
        found = ", ".join(file) or "nothing"
        file.close()
        raise InputError(f"{images} holds {found} and no '{kind}'; expected the released cuhk-03.mat: fetch it again")
    return file


def read_pairs(file, kind: str) -> list[np.ndarray]:
    """For each pair of cameras, the references (10, people) to the images of its people."""
    try:
        pairs = [file[reference][()] for reference in np.ravel(file[kind][()])]
    except (TypeError, ValueError, KeyError, AttributeError, OSError) as error:
        raise InputError(
            f"'{kind}' in {file.filename} cannot be followed ({str(error)[:120]}); expected references to a table for each "
            "pair of cameras, as in the released cuhk-03.mat: fetch it again"
        ) from error
    wrong = [cells.shape for cells in pairs if cells.ndim != 2 or cells.shape[0] != NUMBERS]
    if wrong or not pairs:
        raise InputError(
            f"'{kind}' in {file.filename} leads to {f'a table {wrong[0]}' if wrong else 'nothing'}; expected tables of "
            f"{NUMBERS} images x people, as in the released cuhk-03.mat: fetch it again"
        )
    return pairs


def read_pixels(file, reference) -> np.ndarray | None:
    """The pixels (height, width, 3) uint8 that a cell refers to, None if it is empty; h5py's own errors for no cell."""
    pixels = file[reference][()]  # (3, width, height): MATLAB counts columns first
    if pixels.ndim != 3 or pixels.shape[0] != 3:
        return None
    return np.ascontiguousarray(pixels.T.astype(np.uint8))


@contextmanager
def appearing(folder: Path, marker: str):
    """Yield a temporary folder beside `folder`; when the block ends well it takes that place, else nothing stays.

    `marker` is something that every whole folder of this kind holds: then another process was faster, which is well.
    """
    try:
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    except OSError as error:
        raise InputError(
            f"{folder.parent} cannot be written ({error.strerror}) and cuhk-03.mat has to be unpacked there; copy the "
            ".mat files to a writable place"
        ) from error
    try:
        temporary.chmod(0o755)
        yield temporary
        try:
            os.rename(temporary, folder)
        except OSError:
            if not (folder / marker).exists():
                raise
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror or error}); make room, or copy the .mat files to a "
            "writable place"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def find(root: Path, name: str) -> Path | None:
    """The file of that name in `root` or in its cuhk03_release/, None if it is in neither."""
    return next((root / place / name for place in PLACES if (root / place / name).is_file()), None)


def _write_images(file, images: Path, protocol: Protocol, kind: str, folder: Path) -> None:
    from tqdm import tqdm

    pairs = read_pairs(file, kind)
    total = sum(len(positions) for positions in protocol.parts.values())
    with tqdm(total=total, unit="image", desc=f"unpacking {images.name}") as bar:
        for part, positions in protocol.parts.items():
            (folder / part).mkdir()
            for position in positions:
                name = protocol.names[position]
                pixels, view = _image(file, pairs, name, protocol.file)
                target = f"{folder / part}/{protocol.labels[position]:04d}_c{view}_{position + 1}.png"
                Image.fromarray(pixels).save(target, compress_level=1)  # 1: fast, and hardly larger
                bar.update()


def _image(file, pairs: list[np.ndarray], name: str, index: Path) -> tuple[np.ndarray, int]:
    """Pixels (height, width, 3) uint8 and view (1 or 2) of an image that the index calls `name`."""
    match = LISTED.match(name)
    if match is None:
        raise InputError(f"{index} lists '{name}'; expected names such as 1_001_1_01.png: fetch it again")
    pair, person, view, number = map(int, match.groups())
    try:
        pixels = read_pixels(file, pairs[pair - 1][number - 1, person - 1])
    except (IndexError, ValueError, OSError) as error:
        raise InputError(
            f"{index} lists {name}, which cannot be found in {file.filename} ({error}); use the two released files"
        ) from error
    if pixels is None:
        raise InputError(f"{index} lists {name}, and that cell of {file.filename} is empty; use the released files")
    return pixels, view
