"""Write synthetic people to disk in Market-1501 layout, with unlabelled crops and the truth about every test image."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from lab.data.synthetic.draw import generator
from lab.data.synthetic.render import PARTS, render
from lab.errors import InputError

FORMAT, VERSION = "lab synthetic people", 1
MARKER, TRUTH = "synthetic.json", "ground_truth.npz"
FOLDERS, PLACES = ("bounding_box_train", "query", "bounding_box_test", "unlabeled"), "places"
JPEG_QUALITY = 92
FIRST_PID = 2  # as in Market-1501, where 0 and -1 mean something else
DISTRACTOR_PEOPLE, JUNK_PEOPLE, UNLABELED_PEOPLE, NOBODY = 100_000, 200_000, 1_000_000, 500_000_000
CHUNK = 48  # crops that one process renders before it reports


@dataclass(frozen=True)
class SyntheticConfig:
    """How many people, cameras and crops; the defaults are what notebooks and `lab demo` use."""

    seed: int = 0  # another seed is another world: other people, other cameras
    num_train_ids: int = 120  # identities with a name to learn from
    num_test_ids: int = 60  # identities to find again; none of them is in training
    num_cameras: int = 6  # different places
    min_cameras: int = 3  # each person passes at least so many cameras; 2 is the least that makes a query answerable
    max_cameras: int = 5  # and at most so many
    min_crops: int = 2  # crops of one person by one camera, at least; the first of a test person is the query
    max_crops: int = 4  # and at most
    num_distractors: int = 120  # gallery crops of people who are nobody's match (pid 0000)
    num_junk: int = 40  # gallery crops of failed detections (pid -1), dropped by the reader
    num_unlabeled: int = 2400  # crops without a name for pre-training
    people_unlabeled: int = 240  # people on them; none of them is in training or test
    num_places: int = 0  # pictures without a person; if any, unlabelled crops are PNG cut-outs: alpha is the person
    height: int = 128  # pixels
    width: int = 64  # pixels

    def check(self) -> None:
        """Refuse settings that cannot make a usable data set."""
        wrong = [
            (self.num_train_ids < 1 or self.num_test_ids < 1, "num_train_ids and num_test_ids must be at least 1"),
            (self.num_train_ids + self.num_test_ids > 9998, "num_train_ids + num_test_ids must be at most 9998"),
            (
                not 2 <= self.min_cameras <= self.max_cameras <= self.num_cameras,
                "2 <= min_cameras <= max_cameras <= num_cameras must hold",
            ),
            (not 2 <= self.min_crops <= self.max_crops, "2 <= min_crops <= max_crops must hold"),
            (
                min(self.num_distractors, self.num_junk, self.num_unlabeled, self.num_places, self.seed) < 0,
                "counts and seed start at 0",
            ),
            (self.num_unlabeled > 0 and self.people_unlabeled < 1, "people_unlabeled must be at least 1"),
            (min(self.height, self.width) < 16, "height and width must be at least 16 pixels"),
        ]
        for bad, rule in wrong:
            if bad:
                raise InputError(f"the settings {asdict(self)} make no data set: {rule}; change them")


class Job(NamedTuple):
    """One file to write: what to render and where it goes."""

    file: str  # folder/name.jpg
    pid: int  # of the renderer, not of the file name
    camid: int
    index: int
    badly: bool = False
    empty: bool = False


def _visits(config: SyntheticConfig, pid: int) -> list[tuple[int, int]]:
    """The cameras that this person passes and how many crops each takes, as (camid, crops)."""
    rng = generator(config.seed, 5, pid)
    count = rng.integers(config.min_cameras, config.max_cameras + 1)
    cameras = np.sort(rng.permutation(config.num_cameras)[:count] + 1)
    return [(int(camid), int(rng.integers(config.min_crops, config.max_crops + 1))) for camid in cameras]


def _name(pid: int, camid: int, frame: int, box: int) -> str:
    label = "-1" if pid < 0 else f"{pid:04d}"
    return f"{label}_c{camid}s1_{frame:06d}_{box:02d}.jpg"


def _labelled(config: SyntheticConfig) -> Iterator[Job]:
    """Crops of the training and test identities."""
    for pid in range(FIRST_PID, FIRST_PID + config.num_train_ids + config.num_test_ids):
        for camid, crops in _visits(config, pid):
            start = int(generator(config.seed, 6, pid, camid).integers(1, 900_000))
            for index in range(crops):
                folder = "bounding_box_train" if pid < FIRST_PID + config.num_train_ids else "bounding_box_test"
                if folder == "bounding_box_test" and index == 0:
                    folder = "query"
                box = 0 if folder == "query" else index + 1
                yield Job(f"{folder}/{_name(pid, camid, start + 25 * index, box)}", pid, camid, index)


def _unnamed(config: SyntheticConfig) -> Iterator[Job]:
    """Distractors, junk, unlabelled crops and empty places."""
    rng = generator(config.seed, 7)
    for number in range(config.num_distractors):
        camid = int(rng.integers(1, config.num_cameras + 1))
        name = _name(0, camid, number + 1, 1)
        yield Job(f"bounding_box_test/{name}", DISTRACTOR_PEOPLE + number // 2, camid, number % 2)
    for number in range(config.num_junk):
        camid, empty = int(rng.integers(1, config.num_cameras + 1)), bool(number % 2)
        name = _name(-1, camid, number + 1, 1)
        yield Job(f"bounding_box_test/{name}", JUNK_PEOPLE + number, camid, 0, not empty, empty)
    names = rng.permutation(config.num_unlabeled)
    for number in range(config.num_unlabeled):
        turn, who = divmod(number, config.people_unlabeled)
        cameras = [camid for camid, _ in _visits(config, UNLABELED_PEOPLE + who)]
        camid, index = cameras[turn % len(cameras)], turn // len(cameras)
        suffix = "png" if config.num_places else "jpg"
        yield Job(f"unlabeled/{names[number]:06d}.{suffix}", UNLABELED_PEOPLE + who, camid, index)
    for number in range(config.num_places):
        yield Job(f"{PLACES}/{number:06d}.jpg", NOBODY + number, 1 + number % config.num_cameras, 0, empty=True)


def _write_chunk(folder: str, config: SyntheticConfig, jobs: list[Job]) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Render and store some crops; returns (name, packed mask, part boxes (3, 4)) of the test images among them."""
    truth = []
    size = dict(seed=config.seed, height=config.height, width=config.width, num_cameras=config.num_cameras)
    for job in jobs:
        crop = render(job.pid, job.camid, job.index, badly=job.badly, empty=job.empty, **size)
        picture = crop.image[..., ::-1]
        if job.file.endswith(".png"):
            picture = np.dstack([picture, 255 * crop.mask.astype(np.uint8)])
        how = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if job.file.endswith(".jpg") else []
        stored = cv2.imencode(job.file[-4:], picture, how)[1]
        (Path(folder) / job.file).write_bytes(stored.tobytes())
        if job.file.startswith(("query/", "bounding_box_test/")):
            boxes = np.array([crop.parts[part] for part in PARTS], np.float32)
            truth.append((Path(job.file).name, np.packbits(crop.mask), boxes))
    return truth


def _write_all(folder: Path, config: SyntheticConfig, workers: int, progress: Callable | None) -> dict[str, int]:
    """Fill the folder; returns the number of crops per sub-folder."""
    jobs = sorted([*_labelled(config), *_unnamed(config)], key=lambda job: (job.pid, job.camid, job.index))
    chunks = [jobs[at : at + CHUNK] for at in range(0, len(jobs), CHUNK)]
    names = (*FOLDERS, PLACES) if config.num_places else FOLDERS
    for name in names:
        (folder / name).mkdir()
    args = [str(folder)] * len(chunks), [config] * len(chunks), chunks
    truth, done = [], 0
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn")) if workers > 1 else None
    try:
        for chunk, found in zip(chunks, (pool.map if pool else map)(_write_chunk, *args), strict=True):
            truth += found
            done += len(chunk)
            if progress:
                progress(done, len(jobs))
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)
    truth.sort(key=lambda row: row[0])
    files, masks, boxes = (np.array(column) for column in zip(*truth, strict=True))
    np.savez_compressed(
        folder / TRUTH,
        names=files,
        masks=masks,
        parts=boxes,
        part_names=np.array(PARTS),
        size=np.array((config.height, config.width)),
    )
    return {name: sum(job.file.startswith(f"{name}/") for job in jobs) for name in names}


def read_marker(folder: Path) -> dict | None:
    """What `synthetic.json` says about this folder, or None when it holds no synthetic people."""
    try:
        found = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None


def _reuse(out: Path, config: SyntheticConfig) -> dict | None:
    """What is in `out` if it is what we would write, None if there is room, an InputError otherwise."""
    if not out.exists():
        return None
    if not out.is_dir():
        raise InputError(f"{out} is a file; a folder to write synthetic people into was expected; name another one")
    found = read_marker(out)
    made_with = asdict(SyntheticConfig()) | (found or {}).get("config", {})  # a setting that is newer had its default
    if found and made_with == asdict(config) and found.get("version") == VERSION:
        return found
    if any(out.iterdir()):
        what = "synthetic people made with other settings" if found else "other files"
        raise InputError(f"{out} holds {what}; an empty or new folder was expected; name another one or remove it")
    return None


def write(out: Path, config: SyntheticConfig | None = None, workers: int = 1, progress: Callable | None = None) -> dict:
    """Write the whole data set; returns what `synthetic.json` says: format, version, config and counts per folder.

    The same config makes the same bytes with any number of `workers` (processes). A folder that already holds this
    config is left as it is; `progress(done, total)` is called now and then. Raises InputError when the folder holds
    something else or cannot be written, and leaves nothing half-made.
    """
    out, config = Path(out).absolute(), config or SyntheticConfig()
    config.check()
    found = _reuse(out, config)
    if found:
        return found
    partial = out.parent / f".{out.name}.partial-{os.getpid()}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        counts = _write_all(partial, config, workers, progress)
        marker = {"format": FORMAT, "version": VERSION, "config": asdict(config), "counts": counts}
        (partial / MARKER).write_text(json.dumps(marker, indent=1))
        os.replace(partial, out)
    except OSError as error:
        raise InputError(
            f"cannot write synthetic people to {out} ({error.strerror or error}); a folder that can be made was "
            "expected; name another one"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return marker


def load_ground_truth(root: Path) -> dict[str, tuple[np.ndarray, dict[str, tuple[float, float, float, float]]]]:
    """File name of each query and gallery image -> (mask (H, W) bool, part name -> (x0, y0, x1, y1) in pixels)."""
    path = Path(root) / TRUTH
    if not path.is_file():
        raise InputError(f"{path} is not there; a folder written by `lab data synth` was expected; write one first")
    with np.load(path, allow_pickle=False) as data:
        height, width = (int(side) for side in data["size"])
        masks = np.unpackbits(data["masks"], axis=1, count=height * width).reshape(-1, height, width).astype(bool)
        names, boxes = data["part_names"].tolist(), data["parts"].tolist()
        parts = [dict(zip(names, map(tuple, row), strict=True)) for row in boxes]
        return {str(name): (mask, part) for name, mask, part in zip(data["names"], masks, parts, strict=True)}
