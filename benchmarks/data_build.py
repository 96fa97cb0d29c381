"""What benchmarks/data.py measures of building: the lab's way from a video to crops, and the published one."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np

from lab.data.jpeg import decode
from lab.data.store import Store, close
from lab.data.video.build import build
from lab.data.video.cut import cut, prepare
from lab.data.video.detections import read_detections
from lab.data.video.filters import select
from lab.data.video.frames import FrameReader
from lab.data.video.settings import BuildConfig

ALL = BuildConfig(min_score=0, min_width=0, min_aspect=0, max_aspect=100)  # every box becomes a crop
FRAMES, SIZE, GOP, EVERY = 300, (720, 1280), 250, 5  # of the video that is made: four boxes in every 5th frame


def build_store(video: Path, boxes: Path, out: Path, workers: int = 1) -> int:
    """The lab's way, `lab data build`; returns how many crops there are."""
    return build(video, boxes, out, ALL, workers).report["kept"]


def cut_only(video: Path, boxes: Path) -> int:
    """The part of the lab's way that makes crops, without one that writes any."""
    reader = FrameReader(video, np.empty(0))
    size, dropped = (reader.height, reader.width), Counter()
    chosen = select(prepare(read_detections(boxes), size, ALL), size, ALL, dropped)
    return sum(1 for _ in cut(FrameReader(video, np.unique(chosen.frame)), chosen, size, ALL, dropped))


def decode_only(video: Path) -> int:
    """Every frame of a video, decoded and not looked at."""
    with av.open(str(video)) as container:
        container.streams.video[0].thread_type = "AUTO"
        return sum(1 for _ in container.decode(video=0))


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
    capture, count, position = cv2.VideoCapture(str(video)), 0, 0
    for frame, corners in _corners(boxes):
        for position in range(position + 1, frame + 1):
            capture.grab()
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
            raise ValueError(f"crop {number} of {len(crops)} is {ours.shape}, {file.name} of {len(files)} {theirs.shape}")
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
