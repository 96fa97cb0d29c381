"""MSMT17 in its three layouts: V1, V2 (faces blurred) and a copy in Market-1501's layout; pid 0 is a person in all."""

import os
from pathlib import Path

import numpy as np

from lab.data.readers.market import has_parts, read_parts
from lab.data.readers.scan import contents, first, images_below
from lab.data.splits import ReidDataset, Split
from lab.errors import InputError

FOLDERS = {"msmt17-v1": ("train", "test"), "msmt17-v2": ("mask_train_v2", "mask_test_v2")}
LISTS = {"train": ("list_train.txt", "list_val.txt"), "query": ("list_query.txt",), "gallery": ("list_gallery.txt",)}
SAID = {
    "msmt17-v1": "MSMT17 V1 was read (train/, test/)",
    "msmt17-v2": "MSMT17 V2 was read (mask_train_v2/, mask_test_v2/: faces are blurred)",
    "msmt17-market": "a copy of MSMT17 in Market-1501's layout was read; pid 0 is a person here",
}
TREE = (
    "train/ and test/ (V1) or mask_train_v2/ and mask_test_v2/ (V2) with list_train.txt, list_val.txt, list_query.txt "
    "and list_gallery.txt, or a copy with bounding_box_train/, query/ and bounding_box_test/"
)


def msmt17(root: Path) -> ReidDataset:
    """MSMT17 with all 1,041 training identities: list_train and list_val together, as LUPerson reads it."""
    edition = _edition(root)
    if edition is None and has_parts(root):
        edition = "msmt17-market"
        splits, notes = read_parts(root, "0000_c12_0036.jpg")
    elif edition is not None:
        splits, notes = _read_lists(root, *FOLDERS[edition])
    else:
        raise InputError(_explain(root))
    notes.insert(0, SAID[edition])
    if np.isin(splits["query"].pid, splits["train"].pid).any():
        notes.append(
            "pids of query and gallery begin again at the low numbers of train: the same number is another person "
            "there; numbers are kept as they are"
        )
    return ReidDataset("msmt17", **splits, notes=tuple(notes), edition=edition)


def _edition(root: Path) -> str | None:
    return next((name for name, parts in FOLDERS.items() if all((root / part).is_dir() for part in parts)), None)


def _read_lists(root: Path, train: str, test: str) -> tuple[dict[str, Split], list[str]]:
    absent = [name for names in LISTS.values() for name in names if not (root / name).is_file()]
    if absent:
        raise InputError(
            f"{root} has {train}/ and {test}/ and no {', '.join(absent)}; expected the four lists of MSMT17 beside the "
            "folders: put them there"
        )
    splits, notes, listed = {}, [], {train: set(), test: set()}
    for split, names in LISTS.items():
        folder = train if split == "train" else test
        lines = sorted(line for name in names for line in _lines(root / name))
        if not lines:
            raise InputError(f"{root / names[0]} lists no image; expected lines 'PATH PID': check the data set")
        listed[folder].update(path for path, _, _ in lines)
        paths, pid, camid = zip(*lines, strict=True)
        splits[split] = Split(np.array([str(root / folder / path) for path in paths]), pid, camid)
    for folder, paths in listed.items():
        _compare(root / folder, paths, notes)
    return splits, notes


def _lines(file: Path) -> list[tuple[str, int, int]]:
    """(path, pid, camid) of each line `0000/0000_000_01_0303morning_0015_0.jpg 0`; the camera is the third field."""
    found = []
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        path, _, pid = line.strip().rpartition(" ")
        fields = os.path.basename(path).split("_")
        if len(fields) < 3 or not fields[2].isdigit() or not pid.isdigit():
            raise InputError(
                f"{file} line {number} is '{line.strip()[:80]}'; expected 'PATH PID' with the camera as third field of the "
                "file name, such as 0000/0000_000_01_0303morning_0015_0.jpg 0: mend the line"
            )
        found.append((path, int(pid), int(fields[2])))
    return found


def _compare(folder: Path, listed: set[str], notes: list[str]) -> None:
    there = images_below(folder)
    if absent := listed - there:
        raise InputError(
            f"{len(absent)} listed image(s) are not in {folder} (first: {min(absent)}); expected all that the lists "
            "name: the copy is incomplete"
        )
    if more := there - listed:
        notes.append(f"{folder.name}: {len(more)} image(s) that are on no list skipped ({first(more)})")


def _explain(root: Path) -> str:
    if root.is_file():
        return f"{root} is a file; expected a folder with {TREE}"
    for entry in sorted(path for path in root.iterdir() if path.is_dir()):
        if _edition(entry) or has_parts(entry):
            return f"{root} is not MSMT17's folder, its folder {entry.name}/ is: give --root {entry}"
    return f"{root} holds {contents(root)}; expected {TREE}"
