"""Market-1501's layout, in which also DukeMTMC-reID, CUHK03's new protocol and copies of MSMT17 come.

Three folders of images whose names begin with PID_cCAMERA. pid -1 is junk and dropped; pid 0 is a distractor in
Market-1501 (it stays in the gallery as a negative) and a person like others in MSMT17.
"""

import re
from pathlib import Path

import numpy as np

from lab.data.readers.counts import PUBLISHED_COUNTS
from lab.data.readers.scan import contents, images_in
from lab.data.splits import ReidDataset, Split
from lab.errors import InputError

PARTS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
NAME = re.compile(r"^(-?\d+)_c(\d+)")  # 0002_c1s1_000451_03.jpg, and MSMT17's two-digit cameras: 0000_c12_0036.jpg
JUNK = -1
EXAMPLE = "0002_c1s1_000451_03.jpg"
EXTRA_FOLDERS = ("distractors_500k/images", "distractors_500k", "images")  # distractors_500k.zip unpacks to images/


def market1501(root: Path, name: str = "market1501") -> ReidDataset:
    """Market-1501, also without its distractors or with 500,000 more: pid 0 is a distractor and stays in the gallery."""
    splits, notes = read_parts(root, EXAMPLE)
    gallery = splits["gallery"]
    distractors = int((gallery.pid == 0).sum())
    if name == "market1501-no-distractors":
        splits["gallery"] = _without_distractors(root, gallery)
        notes.append(
            f"bounding_box_test: {distractors} distractor(s) (pid 0) left out, as this variant of the data set wants: "
            "mAP is not comparable with published figures, which keep them"
        )
    elif distractors:
        notes.append(f"bounding_box_test: {distractors} distractor(s) (pid 0) kept as negatives")
    elif len(gallery) == PUBLISHED_COUNTS["market1501-no-distractors"]["gallery"][0]:
        notes.append(
            "bounding_box_test: this copy has no distractors (pid 0; 2,798 in the published one): mAP is not "
            "comparable with published figures"
        )
    if name == "market1501-500k":
        splits["gallery"] = _join(gallery, _extra_distractors(root, notes))
    return ReidDataset(name, **splits, notes=tuple(notes), edition=name)


def multi_query_crops(root: Path) -> Split | None:
    """The hand-drawn boxes in gt_bbox/, which the multi-query protocol pools; None where this folder is not there."""
    boxes = root / "gt_bbox"
    return _read_part(boxes, EXAMPLE, []) if boxes.is_dir() else None


def dukemtmc(root: Path) -> ReidDataset:
    """DukeMTMC-reID: Market-1501's layout with names 0001_c2_f0046182.jpg and eight cameras."""
    splits, notes = read_parts(root, "0001_c2_f0046182.jpg")
    return ReidDataset("dukemtmc", **splits, notes=tuple(notes), edition="dukemtmc")


def synthetic(root: Path) -> ReidDataset:
    """The built-in synthetic people, written by `lab data synth` in Market-1501's layout."""
    if not (root / "synthetic.json").is_file():
        raise InputError(
            f"{root} has no synthetic.json, so it is not a folder of `lab data synth`; make one with "
            "`lab data synth --out DIR`, or read it with --dataset market1501"
        )
    found = market1501(root)
    return ReidDataset("synthetic", found.train, found.query, found.gallery, found.notes)


def has_parts(root: Path) -> bool:
    """Whether the three folders of Market-1501's layout are in `root`."""
    return all((root / part).is_dir() for part in PARTS.values())


def read_parts(root: Path, example: str) -> tuple[dict[str, Split], list[str]]:
    """Train, query and gallery of a Market-style folder, and notes on what was passed over; `example` is a file name.

    Raises InputError for another layout, a name without pid and camera, and a split without images.
    """
    if not has_parts(root):
        raise InputError(explain_parts(root, example))
    notes: list[str] = []
    return {split: _read_part(root / part, example, notes) for split, part in PARTS.items()}, notes


def explain_parts(root: Path, example: str) -> str:
    """One sentence: which of the three folders are missing in `root`, what is there, what was expected."""
    expected = f"bounding_box_train/, query/ and bounding_box_test/ with names such as {example}"
    if root.is_file():
        return f"{root} is a file; expected a folder with {expected}"
    absent = ", ".join(part for part in PARTS.values() if not (root / part).is_dir())
    for entry in sorted(path for path in root.iterdir() if path.is_dir()):
        if has_parts(entry):
            return f"{root} has no {absent}, its folder {entry.name}/ has: give --root {entry}"
    return f"{root} has no {absent} (it holds {contents(root)}); expected {expected}"


def _read_part(part: Path, example: str, notes: list[str]) -> Split:
    images = images_in(part, notes)
    if not images:
        raise InputError(f"{part} holds no image; expected names such as {example}: check the data set")
    matches = [NAME.match(name) for name in images]
    nameless = [name for name, match in zip(images, matches, strict=True) if match is None]
    if nameless:
        raise InputError(
            f"{len(nameless)} image(s) in {part} carry no pid and camera in their name (first: {nameless[0]}); expected "
            f"names such as {example}: rename or remove them, or list them in a CSV for --dataset folder"
        )
    pid = np.array([int(match[1]) for match in matches], dtype=np.int64)
    camid = np.array([int(match[2]) for match in matches], dtype=np.int64)
    junk = pid == JUNK
    if junk.any():
        notes.append(f"{part.name}: {junk.sum()} junk image(s) (pid -1) dropped, as the protocol wants")
    split = Split(np.array([f"{part / name}" for name in images]), pid, camid).take(~junk)
    if not len(split):
        raise InputError(f"{part} holds only junk images (pid -1); expected people with a pid: check the data set")
    return split


def _without_distractors(root: Path, gallery: Split) -> Split:
    people = gallery.take(gallery.pid != 0)
    if not len(people):
        raise InputError(
            f"{root / 'bounding_box_test'} holds only distractors (pid 0); expected people too: check the data set"
        )
    return people


def _extra_distractors(root: Path, notes: list[str]) -> Split:
    """The images of distractors_500k.zip as pid 0, whatever their names say; camera 0 where the name has none."""
    place = next((root / name for name in EXTRA_FOLDERS if (root / name).is_dir()), None)
    if place is None:
        raise InputError(
            f"{root} has no folder distractors_500k/ or images/ with the 500,000 extra distractors; unpack "
            "distractors_500k.zip there, or use --dataset market1501"
        )
    images = images_in(place, notes)
    if not images:
        raise InputError(f"{place} holds no image; expected the 500,000 extra distractors: unpack distractors_500k.zip")
    matches = [NAME.match(name) for name in images]
    camid = np.array([int(match[2]) if match else 0 for match in matches], dtype=np.int64)
    people = sum(match is not None and int(match[1]) > 0 for match in matches)
    if people:
        notes.append(f"{place.name}: {people} image(s) named like people (pid above 0) were read as distractors too")
    notes.append(f"{place.name}: {len(images)} extra distractor(s) added to the gallery as pid 0")
    return Split(np.array([f"{place / name}" for name in images]), np.zeros(len(images)), camid)


def _join(one: Split, other: Split) -> Split:
    return Split(*(np.concatenate([getattr(one, field), getattr(other, field)]) for field in ("path", "pid", "camid")))
