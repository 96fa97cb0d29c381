"""Two folders of images, one per camera, with names PID_anything: how VIPeR and CUHK01 are usually kept."""

import os
import re
from pathlib import Path

import numpy as np

from lab.data.readers.scan import contents, images_in, is_image
from lab.data.splits import ReidDataset, Split
from lab.errors import InputError

NAME = re.compile(r"^(\d+)_")  # VIPeR 000_45.bmp, CUHK01 001_00005.png


def two_folders(root: Path, seed: int = 0) -> ReidDataset:
    """Half of the people whom both cameras saw train; the other half is searched from camera 1 in camera 2.

    camid 1 and 2 are the two folders in the order of their names; `seed` draws the half (rounded down) that trains.
    People whom only camera 2 saw stay in the gallery as negatives.
    """
    notes: list[str] = []
    one, two = (_camera(folder, camid, notes) for camid, folder in enumerate(_cameras(root, notes), 1))
    both = np.intersect1d(one.pid, two.pid)
    if len(both) < 2:
        raise InputError(
            f"{root} has {len(both)} person(s) whom both cameras saw; expected at least two with the same PID at the "
            "start of names in both folders: check the names"
        )
    learnt = np.random.default_rng(seed).choice(both, len(both) // 2, replace=False)
    first, second = (camera.take(np.isin(camera.pid, learnt)) for camera in (one, two))
    train = Split(*(np.concatenate([getattr(first, f), getattr(second, f)]) for f in ("path", "pid", "camid")))
    query = one.take(np.isin(one.pid, np.setdiff1d(both, learnt)))
    gallery = two.take(~np.isin(two.pid, learnt))
    notes += _explain_protocol(root, one, two, len(both), len(learnt), seed)
    return ReidDataset("folder", train, query, gallery, tuple(notes))


def _explain_protocol(root: Path, one: Split, two: Split, both: int, learnt: int, seed: int) -> list[str]:
    names = [os.path.basename(os.path.dirname(camera.path[0])) for camera in (one, two)]
    notes = [
        f"two folders were read as two cameras: camid 1 is {names[0]}/, camid 2 is {names[1]}/",
        f"of {both} people whom both cameras saw, {learnt} were drawn with seed {seed} to train and {both - learnt} are "
        f"searched: query is {names[0]}/, gallery is {names[1]}/; published figures on such sets average over ten "
        "such draws (lab.data.load(..., seed=1) is another)",
    ]
    if only := len(np.setdiff1d(one.pid, two.pid)):
        notes.append(f"{names[0]}: images of {only} people whom only this camera saw skipped: nothing could match them")
    if only := len(np.setdiff1d(two.pid, one.pid)):
        notes.append(f"{names[1]}: {only} people whom only this camera saw stay in the gallery as negatives")
    return notes


def _cameras(root: Path, notes: list[str]) -> list[Path]:
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir())
    cameras = [folder for folder in folders if any(is_image(entry.name) for entry in os.scandir(folder))]
    if len(cameras) != 2:
        raise InputError(
            f"{root} holds 0 CSV files and {len(cameras)} sub-folder(s) of images (it holds {contents(root)}); expected a CSV "
            "with columns path,pid,camid,split, or exactly two sub-folders, one per camera, with names such as 000_45.bmp"
        )
    if others := [folder.name for folder in folders if folder not in cameras]:
        notes.append(f"{len(others)} sub-folder(s) without images skipped ({', '.join(others[:3])})")
    return cameras


def _camera(folder: Path, camid: int, notes: list[str]) -> Split:
    images = images_in(folder, notes)
    matches = [NAME.match(name) for name in images]
    nameless = [name for name, match in zip(images, matches, strict=True) if match is None]
    if nameless:
        raise InputError(
            f"{len(nameless)} image(s) in {folder} do not begin with a PID (first: {nameless[0]}); expected names such as "
            "000_45.bmp: rename or remove them, or list all in a CSV path,pid,camid,split"
        )
    pid = np.array([int(match[1]) for match in matches], dtype=np.int64)
    return Split(np.array([f"{folder / name}" for name in images]), pid, np.full(len(images), camid))
