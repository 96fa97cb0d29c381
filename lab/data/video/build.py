"""From videos and boxes to a store: each video is cut into a part by any process or machine, one writer packs the parts.

    list the videos -> number them -> cut each into a part (cutting.py, parts.py) -> pack the parts into the store

A part that is there is not made again, and the store is packed in the order of its keys, so a build that was killed goes on,
and it ends with the same bytes whoever made the parts. With shards every machine cuts its share; `merge` packs them all.
"""

import hashlib
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path

import numpy as np

from lab.data.keys import Place, number_places, widths_for
from lab.data.store import UNFINISHED
from lab.data.store_writer import StoreWriter, holding
from lab.data.video.cutting import Job, crashed, cut_video
from lab.data.video.detections import match_detections
from lab.data.video.frames import list_videos
from lab.data.video.parts import Part, grouped
from lab.data.video.report import summarise
from lab.data.video.settings import BuildConfig
from lab.errors import InputError
from lab.files import write_json

SHARD_DONE = "shard.json"  # in a shard whose videos are all cut
Progress = Callable[[str, int, int], None]  # what is done, how much of it, how much in all


@dataclass(frozen=True)
class Built:
    """What a build did: the `report` (None of a shard), and what this call itself made, in `seconds`."""

    folder: Path
    report: dict | None
    crops: int = 0
    seconds: float = 0.0
    there: bool = False  # all was there already


def build(
    videos: Path,
    detections: Path | None,
    out: Path,
    config: BuildConfig,
    workers: int = 1,
    shard: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> Built:
    """Cut the people out of `videos`, a file or a folder, into the store `out`.

    Names of folders are country and city, as in country/city/video.mp4. `detections` is a file or a folder of files
    (detections.py); None with `config.detector`. `shard` (i, n) cuts every n-th video from the i-th on into a folder of
    its own below `out`. Raises InputError for inputs that do not fit together; videos that are broken are reported.
    """
    progress = progress or (lambda *_: None)
    if (detections is None) == (config.detector is None):
        raise InputError(
            "give either --detections FILE_OR_DIR or --detector NAME, so that it is known where people are"
        )
    files, unused = list_videos(videos), []
    root = videos if videos.is_dir() else videos.parent
    matched: dict[Path, Path] = {}
    if detections is not None:
        matched, left = match_detections(files, root, detections)
        unused = sorted(file.relative_to(detections).as_posix() if detections.is_dir() else file.name for file in left)
        if not matched:
            raise InputError(
                f"none of the {len(files)} video(s) at {videos} has detections at {detections}; expected a file with the "
                "video's name, as in NAME.pkl or NAME.txt"
            )
    places = name_places(files, root)
    plan = make_plan(places.values(), config)
    _check_models(config)
    folder = out if shard is None else out / f"shard-{shard[0]}-of-{shard[1]}"
    jobs = _jobs(files, root, places, matched, folder, config)
    jobs = jobs if shard is None else jobs[shard[0] :: shard[1]]
    if shard is not None:
        return _build_shard(folder, jobs, plan | {"shard": list(shard)}, unused, workers, progress)
    with holding(folder, plan) as finished:
        if finished:
            return Built(folder, None, there=True)
        started, made = time.monotonic(), 0
        for number, note in enumerate(_cut_all(jobs, workers), 1):
            made += note["kept"] if note["fresh"] else 0
            progress("cutting", number, len(jobs))
        try:
            report = pack(folder, [(job.part, job.place) for job in jobs], plan, unused, progress)
        except NothingKeptError:
            if config.detector is None:  # nothing to lose: another try may have other settings
                (folder / UNFINISHED).unlink()
                shutil.rmtree(folder / "parts")
            raise
        shutil.rmtree(folder / "parts")
    return Built(folder, report, made, time.monotonic() - started)


def name_places(files: Sequence[Path], root: Path) -> dict[Path, Place]:
    """Country, city and name of each video by its folders; a name without its suffix, unless two differ in that alone."""
    found = {}
    for file in files:
        country, *cities = file.relative_to(root).parts[:-1] or ("",)
        found[file] = (country, "/".join(cities), file.stem)
    taken = list(found.values())
    return {file: (*place[:2], file.name) if taken.count(place) > 1 else place for file, place in found.items()}


def make_plan(places: Iterable[Place], config: BuildConfig) -> dict:
    """What the store follows from: the names of the videos, which number them, and the settings."""
    places = sorted(places)
    names = hashlib.sha256("\n".join("\t".join(place) for place in places).encode()).hexdigest()
    settings = {field.name: getattr(config, field.name) for field in fields(config) if field.name != "device"}
    settings |= {field.name: float(settings[field.name]) for field in fields(config) if field.type is float}
    settings["detector_weights"] = config.detector_weights and config.detector_weights.name
    return {"kind": "videos", "videos": len(places), "names": names, "settings": settings}


def pack(folder: Path, parts: Sequence[tuple[Part, Place]], plan: dict, unused: list[str], progress: Progress) -> dict:
    """Write the store from the parts of all videos, and return its report. Raises InputError if there is no crop."""
    parts = sorted(parts, key=lambda one: one[0].name)
    notes = [part.read_note() for part, _ in parts]
    report = summarise(notes, unused)
    full = [one for one, note in zip(parts, notes, strict=True) if note["kept"]]
    if not full:
        raise NothingKeptError(report)
    writer = StoreWriter(folder)
    last = writer.last
    for count in writer.write(record for part, _ in full for record in part.records(last)):
        progress("packing", count, report["kept"])
    tables = grouped(part.rows(place) for part, place in full)
    writer.finish(tables, plan, report, _labels([part for part, _ in full]))
    return report


class NothingKeptError(InputError):
    """A build in which no box became a crop; `report` says why."""

    def __init__(self, report: dict):
        super().__init__(
            f"none of the {report['boxes']} boxes of {report['videos']} video(s) became a crop; expected at least one: "
            "look at the reasons above, and give the filters other limits"
        )
        self.report = report


def _labels(parts: Sequence[Part]) -> dict:
    """Tracklets as numbers over the whole store for keys.pkl ("pids", -1 unknown), if any is known."""
    pids, started = [], 0
    for part in parts:
        track = part.tracks()
        known, numbers = np.unique(track[track >= 0], return_inverse=True)
        found = np.full(len(track), -1, dtype=np.int64)
        found[track >= 0] = started + numbers
        pids.append(found)
        started += len(known)
    return {"pids": np.concatenate(pids)} if started else {}


def _build_shard(
    folder: Path, jobs: list[Job], plan: dict, unused: list[str], workers: int, progress: Progress
) -> Built:
    with holding(folder, plan, SHARD_DONE) as finished:
        if finished:
            return Built(folder, None, there=True)
        started, made, names = time.monotonic(), 0, []
        for number, note in enumerate(_cut_all(jobs, workers), 1):
            made += note["kept"] if note["fresh"] else 0
            progress("cutting", number, len(jobs))
        names = [[job.part.name, list(job.place)] for job in jobs]
        write_json(folder / SHARD_DONE, {"source": plan, "unused": unused, "parts": names})
    return Built(folder, None, made, time.monotonic() - started)


def _jobs(
    files: Sequence[Path],
    root: Path,
    places: dict[Path, Place],
    matched: dict[Path, Path],
    folder: Path,
    config: BuildConfig,
) -> list[Job]:
    """What there is to do, in the order of the keys."""
    numbers = number_places(places.values())
    widths = widths_for(numbers.values())
    jobs = []
    for file in files:
        name, place = file.relative_to(root), places[file]
        found = folder / "detections" / name.with_name(f"{name.name}.txt") if config.detector else matched.get(file)
        part = Part(folder / "parts", numbers[place], widths)
        jobs.append(Job(file, name.as_posix(), place, part, found, config))
    return sorted(jobs, key=lambda job: job.part.name)


def _check_models(config: BuildConfig) -> None:
    """Load the networks once, so that a wrong name or file ends the build here and not at every video."""
    if config.detector or config.keypoints:
        from lab.data.video.detectors import load_detector, load_keypoints

        if config.detector:
            load_detector(config)
        if config.keypoints:
            load_keypoints(config)


def _cut_all(jobs: Sequence[Job], workers: int) -> Iterator[dict]:
    """Cut the videos in so many processes; yields each note as it is done.

    A video can end its process (a fault in a codec, too little memory), and that of the others with it. Those that were
    being cut then are tried again, each alone; one that ends its process again is reported.
    """
    for job in jobs[:1]:
        job.part.note.parent.mkdir(exist_ok=True)
    if workers == 1:
        yield from map(cut_video, jobs)
        return
    waiting = iter(jobs)
    while True:
        suspects: list[Job] = []
        with _pool(workers) as pool:
            flying = {pool.submit(cut_video, job): job for job in islice(waiting, workers)}
            while flying:
                for future in wait(flying, return_when=FIRST_COMPLETED).done:
                    job = flying.pop(future)
                    try:
                        yield future.result()
                    except BrokenProcessPool:
                        suspects.append(job)
                    if not suspects and (job := next(waiting, None)):
                        flying[pool.submit(cut_video, job)] = job
        if not suspects:
            return
        for job in suspects:
            yield _cut_alone(job)


def _cut_alone(job: Job) -> dict:
    with _pool(1) as pool:
        try:
            return pool.submit(cut_video, job).result()
        except BrokenProcessPool:
            return crashed(job)


def _pool(workers: int) -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")  # a forked OpenCV may hang
    return ProcessPoolExecutor(workers, spawn, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """In a worker: do not go on when the build was killed; its successor works in the same folder."""

    def wait_for_end() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait_for_end, daemon=True).start()
