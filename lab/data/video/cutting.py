"""One video becomes one part: its boxes are read, filtered and cut, and whatever goes wrong is counted and named."""

import multiprocessing
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lab.data.keys import Place
from lab.data.video.cut import cut, prepare
from lab.data.video.detections import Boxes, read_detections
from lab.data.video.filters import mismatch, select
from lab.data.video.frames import FrameReader
from lab.data.video.parts import Part
from lab.data.video.report import COUNTS
from lab.data.video.settings import BuildConfig
from lab.errors import InputError

# What can be wrong with a video; none of its crops is kept, but for one that breaks off.
NO_DETECTIONS = "video without detections"
BAD_DETECTIONS = "detections that cannot be read"
NOT_OPENED = "video that cannot be opened"
OTHER_VIDEO = "detections of another video"
BREAKS_OFF = "video that breaks off"
CRASHED = "video that ends the process which decodes it"


@dataclass(frozen=True)
class Job:
    """A video to cut. `detections` is its file; with a detector, where that puts what it finds."""

    video: Path
    name: str  # path below the folder of videos, for the report
    place: Place
    part: Part
    detections: Path | None
    config: BuildConfig

    def inputs(self) -> list:
        """What the part is made from: another file under the same name is another part."""
        files = [self.video] if self.config.detector else [self.video, self.detections]
        stats = [file.stat() if file is not None and file.exists() else None for file in files]
        return [stat and [stat.st_size, stat.st_mtime_ns] for stat in stats]

    def detection_title(self) -> str:
        """What the file of a detector's boxes is called: another video, detector or step makes another file."""
        config, size = self.config, self.video.stat().st_size if self.video.exists() else 0
        weights = config.detector_weights.name if config.detector_weights else "its own weights"
        return f"{self.name!a}, {size} bytes, by {Path(config.detector).name}, {weights}, every {config.detect_every}"

    def said(self, error: InputError) -> str:
        """What is wrong, without the place of the files on this machine: it goes into the store."""
        text = str(error).replace(str(self.video), self.name)
        return text.replace(str(self.detections), self.detections.name) if self.detections else text


def cut_video(job: Job) -> dict:
    """Write the part of a video, unless it is there, and return its note.

    The note: `video`, `problem` (None or one of the above) with its `detail`, `frames` decoded, `boxes` in the detection
    file and how many of them are `unscored`, `kept`, `dropped` (reason -> boxes; with `kept` they add up to `boxes`),
    `clipped` crops, `fresh` (made now).
    """
    inputs = job.inputs()
    note = job.part.read_note()
    if note and note["inputs"] == inputs:
        return note | {"fresh": False}
    note = _blank(job)
    dropped: Counter[str] = Counter()
    with job.part.writing(note) as writer:
        _cut(job, note, dropped, writer)
        if note["problem"] in (NOT_OPENED, OTHER_VIDEO):
            writer.clear()
            note["kept"], note["clipped"] = 0, 0
            dropped = Counter({note["problem"]: note["boxes"]})
        note |= {"dropped": dict(sorted(dropped.items())), "inputs": inputs}
    return note | {"fresh": True}


def crashed(job: Job) -> dict:
    """The note of a video whose decoding ended the process, twice."""
    note = _blank(job) | {"problem": CRASHED, "dropped": {}, "inputs": job.inputs()}
    with job.part.writing(note):
        pass
    return note | {"fresh": True}


def _blank(job: Job) -> dict:
    return {"video": job.name, "problem": None, "detail": ""} | dict.fromkeys(COUNTS, 0)


def _cut(job: Job, note: dict, dropped: Counter[str], writer) -> None:
    boxes = _read_boxes(job, note)
    if boxes is None:
        return
    note["boxes"] = len(boxes) + sum(boxes.skipped.values())
    note["unscored"] = int(np.isnan(boxes.score).sum())
    dropped.update({f"unusable entry: {reason}": count for reason, count in boxes.skipped.items()})
    try:
        video = _open(job.video)
        size = (video.height, video.width)
        found = prepare(boxes, size, job.config)
        if reason := mismatch(found, 0, size):
            note |= {"problem": OTHER_VIDEO, "detail": reason}
            return
        chosen = select(found, size, job.config, dropped)
        # up to the last box of all, to see whether the video goes on as long as its detections; in one thread, as several
        # may disagree on the last frame before a damage
        end = video.declared if job.config.detector else 0  # its boxes end where the video does
        wanted = np.append(chosen.frame, found.frame.max(initial=max(1, end)))
        frames = FrameReader(job.video, np.unique(wanted), threads=1)
        heads = found if job.config.blur_heads else None
        for crop in cut(_watched(frames, job.name), chosen, size, job.config, dropped, heads, _keypoints(job.config)):
            writer.add(crop)
            note["kept"] += 1
            note["clipped"] += crop.clipped
    except InputError as error:
        note |= {"problem": NOT_OPENED, "detail": job.said(error)}
        return
    note["frames"] = frames.decoded
    if frames.damage:
        note |= {"problem": BREAKS_OFF, "detail": frames.damage}
    elif reason := mismatch(found, frames.decoded, size):
        note |= {"problem": OTHER_VIDEO, "detail": reason}


def _read_boxes(job: Job, note: dict) -> Boxes | None:
    if job.config.detector:
        try:
            _detect(job)
        except InputError as error:
            note |= {"problem": NOT_OPENED, "detail": job.said(error)}
            return None
    if job.detections is None:
        note["problem"] = NO_DETECTIONS
        return None
    try:
        return read_detections(job.detections)
    except InputError as error:
        note |= {"problem": BAD_DETECTIONS, "detail": job.said(error)}
        return None


def _open(video: Path) -> FrameReader:
    """A look at a video without reading a frame."""
    return FrameReader(video, np.empty(0, dtype=np.int64))


def _watched(frames: FrameReader, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """The frames, with a progress bar if that takes long."""
    with _bar(f"cutting {name}", int(frames.wanted.max(initial=0))) as bar:
        for number, rgb in frames:
            yield number, rgb
            bar.update(number - bar.n)


def _bar(what: str, frames: int) -> tqdm:
    """A progress bar for one video, where it has a terminal line of its own: not in one of several processes."""
    alone = multiprocessing.parent_process() is None
    return tqdm(total=frames or None, desc=what, unit="frame", delay=3, leave=False, disable=not alone)


def _detect(job: Job) -> None:
    from lab.data.video.detectors import detect_video

    job.detections.parent.mkdir(parents=True, exist_ok=True)
    with _bar(f"detecting in {job.name}", _open(job.video).declared) as bar:
        detect_video(
            job.video,
            _detector(job.config),
            job.config.detect_every,
            job.detections,
            progress=lambda frame: bar.update(frame - bar.n),
            title=job.detection_title(),
        )


@cache
def _detector(config: BuildConfig):
    from lab.data.video.detectors import load_detector

    return load_detector(config)


@cache
def _keypoints(config: BuildConfig):
    if config.keypoints is None:
        return None
    from lab.data.video.detectors import load_keypoints

    return load_keypoints(config)
