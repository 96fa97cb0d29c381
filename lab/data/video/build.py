"""From videos and boxes to a store: each video is cut into a part by any process or machine, one writer packs the parts.

    list the videos (listing.py) -> cut each into a part (cutting.py, parts.py) -> pack the parts into the store (packing.py)

A part that is there is not made again, and the store is packed in the order of its keys, so a build that was killed goes on,
and it ends with the same bytes whoever made the parts. With shards every machine cuts its share; `merge` packs them all.
"""

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lab.data.holding import holding
from lab.data.keys import number_places, widths_for
from lab.data.store import UNFINISHED
from lab.data.video.cutting import Job, crashed, cut_video
from lab.data.video.listing import Listing, list_inputs
from lab.data.video.packing import NothingKeptError, Progress, clean, pack
from lab.data.video.parts import Part
from lab.data.video.report import summarise
from lab.data.video.settings import BuildConfig
from lab.errors import InputError
from lab.files import write_json

SHARD_DONE = "shard.json"  # in a shard whose videos are all cut


@dataclass(frozen=True)
class Built:
    """What a build did: the `report` (None if all was there already), and what this call itself made, in `seconds`."""

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
        given = "neither was given" if detections is None else "both were given"
        raise InputError(f"give either --detections FILE_OR_DIR or --detector NAME, to say where people are; {given}")
    listing = list_inputs(videos, detections)
    _check_models(config)
    plan, inputs = listing.plan(config), listing.inputs()
    if shard is not None:
        folder, plan = out / f"shard-{shard[0]}-of-{shard[1]}", plan | {"shard": list(shard)}
        jobs = make_jobs(listing, folder, config)[shard[0] :: shard[1]]
        return _build_shard(folder, jobs, plan, inputs, listing.others, workers, progress)
    jobs = make_jobs(listing, out, config)
    with holding(out, plan) as finished:
        if finished:
            _refuse_other_inputs(finished, inputs, out)
            clean(out)
            return Built(out, None, there=True)
        started, made = time.monotonic(), _cut(jobs, workers, progress)
        try:
            parts = [(job.part, job.place) for job in jobs]
            report = pack(out, parts, plan | {"inputs": inputs}, listing.others, progress)
        except NothingKeptError:
            (out / UNFINISHED).unlink()  # nothing to lose: another try may have other settings
            shutil.rmtree(out / "parts")
            raise
        clean(out)
    return Built(out, report, made, time.monotonic() - started)


def _build_shard(
    folder: Path,
    jobs: list[Job],
    plan: dict,
    inputs: str,
    others: dict[str, list[str]],
    workers: int,
    progress: Progress,
) -> Built:
    with holding(folder, plan, SHARD_DONE) as finished:
        if finished:
            _refuse_other_inputs(finished, inputs, folder)
            return Built(folder, None, there=True)
        started, made = time.monotonic(), _cut(jobs, workers, progress)
        names = [[job.part.name, list(job.place)] for job in jobs]
        report = summarise((job.part.read_note() for job in jobs), others)
        write_json(folder / SHARD_DONE, {"source": plan | {"inputs": inputs}, "others": others, "parts": names})
    return Built(folder, report, made, time.monotonic() - started)


def _refuse_other_inputs(source: dict, inputs: str, folder: Path) -> None:
    if source.get("inputs") != inputs:
        raise InputError(
            f"{folder} was made from videos or detections of other names or sizes than there are now; give --out a new folder"
        )


def make_jobs(listing: Listing, folder: Path, config: BuildConfig) -> list[Job]:
    """What there is to do, in the order of the keys."""
    numbers = number_places(listing.places.values())
    widths = widths_for(numbers.values())
    jobs = []
    for video, place in listing.places.items():
        name, detections = listing.name(video), listing.detections.get(video)
        if config.detector:
            detections = folder / "detections" / f"{name}.txt"
        part = Part(folder / "parts", numbers[place], widths)
        jobs.append(Job(video, name, place, part, detections, config))
    return sorted(jobs, key=lambda job: job.part.name)


def _check_models(config: BuildConfig) -> None:
    """Load the networks once, so that a wrong name or file ends the build here and not at every video."""
    if config.detector or config.keypoints:
        from lab.data.video.detectors import load_detector, load_keypoints

        if config.detector:
            load_detector(config)
        if config.keypoints:
            load_keypoints(config)


def _cut(jobs: Sequence[Job], workers: int, progress: Progress) -> int:
    """Cut all videos, and return how many crops were made now."""
    made = 0
    for job in jobs[:1]:
        job.part.note.parent.mkdir(exist_ok=True)
    notes = _cut_in_processes(jobs, workers) if workers > 1 else map(cut_or_blame, jobs)
    for number, note in enumerate(notes, 1):
        made += note["kept"] if note["fresh"] else 0
        progress("cutting", number, len(jobs))
    return made


def cut_or_blame(job: Job) -> dict:
    """Cut a video in this process; if it ended an earlier one, in a process of its own."""
    if job.part.begun.exists():
        return _cut_alone(job)
    job.part.begun.touch()
    note = cut_video(job)
    job.part.begun.unlink()
    return note


def _cut_in_processes(jobs: Sequence[Job], workers: int) -> Iterator[dict]:
    """Cut videos in so many processes; yields each note as it is done.

    A video can end its process (a fault in a codec, too little memory), and that of the others with it. Those that were
    being cut then are tried again, each alone; one that ends its process again is reported.
    """
    waiting = iter(jobs)
    while True:
        suspects: list[Job] = []
        with _pool(workers) as submit:
            flying = {submit(job): job for job in islice(waiting, workers)}
            while flying:
                for future in wait(flying, return_when=FIRST_COMPLETED).done:
                    job = flying.pop(future)
                    try:
                        yield future.result()
                        if not suspects and (job := next(waiting, None)):
                            flying[submit(job)] = job
                    except BrokenProcessPool:
                        suspects.append(job)
        if not suspects:
            return
        for job in suspects:
            yield _cut_alone(job)


def _cut_alone(job: Job) -> dict:
    with _pool(1) as submit:
        try:
            return submit(job).result()
        except BrokenProcessPool:
            return crashed(job)


@contextmanager
def _pool(workers: int) -> Iterator[Callable[[Job], Future]]:
    """So many processes that cut videos; yields what gives them one. They end at once when this block ends by an error."""
    spawn = multiprocessing.get_context("spawn")  # a forked OpenCV may hang

    def submit(job: Job) -> Future:
        with _uninterrupted():  # the first calls start the processes
            return pool.submit(cut_video, job)

    with ProcessPoolExecutor(workers, spawn, initializer=_end_with_parent) as pool:
        try:
            yield submit
        except BaseException:
            for process in multiprocessing.active_children():
                process.kill()
            raise


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C is for this process alone: those that are started meanwhile never hear of it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """In a worker: do not go on when the build was killed; its successor works in the same folder."""

    def wait_for_end() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait_for_end, daemon=True).start()
