"""What benchmarks/data.py measures of building: the lab's way from a video to crops, and the published one."""

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
from processes import Growth, fresh, medians, take_turns

from lab.data.jpeg import decode
from lab.data.store import Store, close
from lab.data.store_writer import BATCH_BYTES
from lab.data.video.build import build
from lab.data.video.cut import cut, prepare
from lab.data.video.detections import read_detections
from lab.data.video.filters import select
from lab.data.video.frames import FrameReader
from lab.data.video.settings import BuildConfig

LIMITS = {"min_score": 0, "min_width": 0, "min_aspect": 0, "max_aspect": 100}
ALL = BuildConfig(**LIMITS)  # every box becomes a crop
FRAMES, SIZE, GOP, EVERY = 300, (720, 1280), 250, 5  # of the video that is made: four boxes in every 5th frame
COPIES = (1, 4, 16)  # of the video, in the builds whose memory is compared
LAB, SEEKING, PASSING = "lab", "published way, a seek per frame", "published way without seeking"


def measure_building(options: argparse.Namespace, folder: Path) -> tuple[list[pd.DataFrame], list[str]]:
    tables, notes = [], []
    for name, (video, boxes) in videos(options, folder).items():
        found, told = measure_ways(name, video, boxes, options)
        tables.append(found)
        notes += told
    video, boxes = next(iter(videos(options, folder).values()))
    inputs = copy(video, boxes, 8, folder / "workers")
    jobs = {
        "8 videos, one process": lambda out: build_by_command(*inputs, out / "store", workers=1),
        "8 videos, two processes": lambda out: build_by_command(*inputs, out / "store", workers=2),
    }
    turns = take_turns(jobs, options.rounds, options.folder)
    notes += [
        "the lab decodes in one thread, OpenCV in as many as it likes; CPU seconds are of all threads and processes",
        "8 videos are built by the command `lab data build`, whose start, and that of its processes, is part of the time",
        f"memory: crops are written in batches of {BATCH_BYTES / 1e6:.3g} MB, which LMDB holds once more in pages of its own; "
        "a build with less than a batch takes less",
    ]
    processes = medians(turns, "8 videos, one process")
    return [pd.concat(tables, ignore_index=True), processes, measure_growth(video, boxes, folder / "growth")], notes


def measure_ways(name: str, video: Path, boxes: Path, options: argparse.Namespace) -> tuple[pd.DataFrame, list[str]]:
    """Every way from one video to its crops, and whether they come to the same."""
    jobs = {
        LAB: lambda out: build_store(video, boxes, out / "store"),
        "lab, crops alone, nothing written": lambda out: cut_only(video, boxes),
        SEEKING: lambda out: cut_by_seeking(video, boxes, out),
        PASSING: lambda out: cut_in_passing(video, boxes, out),
    }
    told = {}

    def check(folder: Path) -> None:
        told.update({way: compare(folder / LAB / "store", folder / way) for way in (SEEKING, PASSING)})

    table = medians(take_turns(jobs, options.rounds, options.folder, check), LAB)
    notes = [f"{name}: {describe_video(video)}", *(f"{name}, {way}: {what}" for way, what in told.items())]
    return table.assign(job=[f"{name}: {job}" for job in table["job"]]), notes


def measure_growth(video: Path, boxes: Path, folder: Path) -> pd.DataFrame:
    """The memory that a build takes, by the number of videos."""
    rows = []
    for count in COPIES:
        place = folder / str(count)
        inputs = copy(video, boxes, count, place)
        crops, memory = fresh(build_watched, *inputs, place / "store")
        size = (place / "store" / "lmdb" / "data.mdb").stat().st_size / 1e6
        rows.append({"job": f"{count} video{'s' * (count > 1)}", "crops": crops, "data.mdb MB": size} | memory)
        print(rows[-1], file=sys.stderr)
    return pd.DataFrame(rows)


def build_watched(videos: Path, boxes: Path, out: Path) -> tuple[int, dict[str, float]]:
    with Growth() as growth:
        return build_store(videos, boxes, out), growth.so_far()


def videos(options: argparse.Namespace, folder: Path) -> dict[str, tuple[Path, Path]]:
    """The video that was given, if it is there, and one that is made once, each with its boxes."""
    made = folder / "street.mp4", folder / "street.txt"
    if not made[1].is_file():
        make_video(folder)
    there = options.video.is_file() and options.detections.is_file()
    return {"given video": (options.video, options.detections), "made video": made} if there else {"made video": made}


def copy(video: Path, boxes: Path, count: int, folder: Path) -> tuple[Path, Path]:
    """Two folders: a video under so many names, and its boxes under the same."""
    folders = folder / "videos", folder / "boxes"
    for place, file in zip(folders, (video, boxes), strict=True):
        place.mkdir(parents=True)
        for number in range(count):
            (place / f"{number:02d}{file.suffix}").symlink_to(file.resolve())
    return folders


def build_store(video: Path, boxes: Path, out: Path) -> int:
    """The lab's way; returns how many crops there are."""
    return build(video, boxes, out, ALL).report["kept"]


def build_by_command(video: Path, boxes: Path, out: Path, workers: int) -> int:
    """The same by the command line: processes that it starts import no more than they need."""
    inputs = ["--videos", video, "--detections", boxes, "--out", out, "--workers", str(workers)]
    limits = [f"--{name.replace('_', '-')}={limit}" for name, limit in LIMITS.items()]
    subprocess.run([sys.executable, "-m", "lab", "data", "build", *inputs, *limits], check=True, capture_output=True)
    return len(Store(out))


def cut_only(video: Path, boxes: Path) -> int:
    """The part of the lab's way that makes crops, without one that writes any."""
    reader = FrameReader(video, np.empty(0))
    size, dropped = (reader.height, reader.width), Counter()
    chosen = select(prepare(read_detections(boxes), size, ALL), size, ALL, dropped)
    frames = FrameReader(video, np.unique(chosen.frame), threads=1)
    return sum(1 for _ in cut(frames, chosen, size, ALL, dropped))


def cut_by_seeking(video: Path, boxes: Path, out: Path) -> int:
    """The published way: seek to every frame that has boxes, and write each crop to a file of its own."""
    capture, count = cv2.VideoCapture(str(video)), 0
    for frame, corners in _corners(boxes):
        capture.set(cv2.CAP_PROP_POS_FRAMES, frame - 1)
        count = _write(capture.read()[1], corners, out, count)
    capture.release()
    return count


def cut_in_passing(video: Path, boxes: Path, out: Path) -> int:
    """The same without seeking: frames without boxes are passed over one by one."""
    capture, count, passed = cv2.VideoCapture(str(video)), 0, 0
    for frame, corners in _corners(boxes):
        for _ in range(frame - passed):
            capture.grab()
        passed = frame
        count = _write(capture.retrieve()[1], corners, out, count)
    capture.release()
    return count


def _corners(boxes: Path) -> Iterator[tuple[int, np.ndarray]]:
    """Frame number from 1 and its boxes as whole corners x0, y0, x1, y1 (n, 4), read without the lab's help."""
    table = np.loadtxt(boxes, delimiter=",", usecols=range(6))
    corners = np.round(np.hstack([table[:, 2:4], table[:, 2:4] + table[:, 4:]])).astype(int)
    for frame in np.unique(table[:, 0]):
        yield int(frame), corners[table[:, 0] == frame]


def _write(picture: np.ndarray, corners: np.ndarray, out: Path, count: int) -> int:
    for x0, y0, x1, y1 in corners.clip(0):
        cv2.imwrite(str(out / f"{count:08d}.jpg"), picture[y0:y1, x0:x1])
        count += 1
    return count


def compare(store: Path, folder: Path) -> str:
    """How far the crops of a store are from those in a folder of numbered files. Raises ValueError if they do not pair."""
    crops, files = Store(store), sorted(folder.glob("*.jpg"))
    farthest, same = 0.0, 0
    for number, file in enumerate(files):
        ours, theirs = decode(crops.read(number)), decode(file.read_bytes())
        if len(crops) != len(files) or ours.shape != theirs.shape:
            raise ValueError(
                f"crop {number} of {len(crops)} is {ours.shape}, {file.name} of {len(files)} {theirs.shape}"
            )
        farthest = max(farthest, float(np.abs(ours.astype(int) - theirs).mean()))
        same += crops.read(number) == file.read_bytes()
    close(store / "lmdb")
    return (
        f"{len(files)} crops of the same sizes both ways, {same} with the same bytes; the largest mean absolute "
        f"difference of a crop is {farthest:.2g} of 255"
    )


def describe_video(video: Path) -> str:
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        keys = [number for number, packet in enumerate(container.demux(stream)) if packet.is_keyframe and packet.size]
        codec = stream.codec_context
        return (
            f"{codec.name}, {codec.width} x {codec.height}, {stream.frames} frames, {len(keys)} key frames (from one to the "
            f"next up to {max(np.diff([*keys, stream.frames]))} frames)"
        )


def make_video(folder: Path) -> tuple[Path, Path]:
    """A video like one from the street, with a key frame every 10 seconds, and its detection file: (video, boxes)."""
    random = np.random.default_rng(0)
    scene = cv2.GaussianBlur(random.integers(0, 256, (SIZE[0] + 100, SIZE[1] + 700, 3), dtype=np.uint8), None, 4)
    scene = cv2.normalize(scene, None, 0, 255, cv2.NORM_MINMAX)
    noise = random.integers(0, 12, (8, *SIZE, 3), dtype=np.uint8)  # of the sensor
    people = [scene[: 160 + 40 * person, : 60 + 15 * person, ::-1] for person in range(4)]
    video, lines = folder / "street.mp4", []
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(video), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = *SIZE, "yuv420p", GOP
        stream.bit_rate = 2_500_000
        stream.options = {"preset": "veryfast", "sc_threshold": "0"} if codec == "libx264" else {}
        for number in range(1, FRAMES + 1):
            frame = scene[number // 6 : number // 6 + SIZE[0], number : number + SIZE[1]] // 2 + 40
            for person, picture in enumerate(people):
                x, y = 20 + 280 * person + number // 3, 150 + 60 * person
                frame[y : y + len(picture), x : x + picture.shape[1]] = picture
                if number % EVERY == 0:
                    lines.append(f"{number},-1,{x}.25,{y}.5,{picture.shape[1]},{len(picture)},0.9")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame + noise[number % 8], format="rgb24")))
        container.mux(stream.encode())
    boxes = folder / "street.txt"
    boxes.write_text("\n".join(lines) + "\n")
    return video, boxes
