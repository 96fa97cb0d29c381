"""From videos and boxes to a store: against plain loops, broken inputs, processes, shards, and builds that are killed."""

import io
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import threading
import time
from collections import Counter, OrderedDict
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from shared_data import SHARED
from videos import cut_off, number_of, write_sound, write_video

from lab.data import store_writer
from lab.data.store import Store
from lab.data.video import build as build_module
from lab.data.video import cutting, packing
from lab.data.video.build import NothingKeptError, build
from lab.data.video.cutting import CRASHED, Job
from lab.data.video.listing import list_inputs, name_places
from lab.data.video.merge import merge
from lab.data.video.report import describe_report
from lab.data.video.settings import BuildConfig
from lab.data.video.shards import find_shard
from lab.errors import InputError

ALL = BuildConfig(min_score=0.3, min_width=10, min_aspect=0.5, max_aspect=10)
PETS = SHARED / "pets09-s2l1"


def write_boxes(file: Path, frames: int, seed: int = 0, size: tuple[int, int] = (256, 128)) -> list[list[float]]:
    """MOTChallenge lines: up to three random people per frame, in a frame of `size` (width, height)."""
    random, rows = np.random.default_rng(seed), []
    for frame in range(1, frames + 1):
        for track in range(random.integers(0, 4)):
            width = random.uniform(8, 40)
            height = width * random.uniform(1, 3)
            x, y = random.uniform(-3, size[0] - width), random.uniform(-3, size[1] - height)
            rows.append([frame, track, *np.round([x, y, width, height, random.uniform(0.2, 1)], 3)])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(",".join(map(str, row)) + ",-1,-1,-1\n" for row in rows))
    return rows


def write_videos(folder: Path, names: list[str], frames: int = 20) -> tuple[Path, Path]:
    for number, name in enumerate(names):
        file = folder / "videos" / f"{name}.avi"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_video(file, frames)
        write_boxes(folder / "boxes" / f"{name}.txt", frames, number)
    return folder / "videos", folder / "boxes"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def crops_by_hand(video: Path, rows: list[list[float]], config: BuildConfig) -> list[tuple[list, bytes]]:
    """Each row that passes the filters, and its crop as PNG-exact pixels, one box after the other."""
    with av.open(str(video)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    found = []
    for row in rows:
        frame, _, x, y, w, h, score = row
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, 256), min(y + h, 128)
        if score <= config.min_score or x1 - x0 <= config.min_width:
            continue
        if not config.min_aspect <= (y1 - y0) / (x1 - x0) <= config.max_aspect:
            continue
        left, top, right, bottom = (max(round(edge), 0) for edge in (x, y, x + w, y + h))
        crop = frames[frame - 1][top:bottom, left:right]
        found.append((row, cv2.imencode(".jpg", crop[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()))
    return found


def test_crops_and_index_are_those_of_plain_loops(tmp_path):
    video = write_video(tmp_path / "street.avi", 40)
    rows = write_boxes(tmp_path / "street.txt", 40)
    config = BuildConfig(min_width=12, min_aspect=1.2)
    built = build(video, tmp_path / "street.txt", tmp_path / "store", config)
    expected = crops_by_hand(video, rows, config)
    assert 5 < len(expected) < len(rows) - 5
    store = Store(tmp_path / "store")
    assert [store.read(i) for i in range(len(store))] == [jpeg for _, jpeg in expected]
    index = store.index()
    assert [store.name(i) for i in range(len(store))] == [f"00_00_0000_{i:08d}" for i in range(len(expected))]
    np.testing.assert_allclose(
        index[["x", "y", "width", "height", "score"]], [row[2:] for row, _ in expected], rtol=1e-6
    )
    assert list(index["frame"]) == [row[0] for row, _ in expected]
    assert list(index["track"]) == [row[1] for row, _ in expected]
    sizes = [Image.open(io.BytesIO(jpeg)).size[::-1] for _, jpeg in expected]
    assert list(map(tuple, index[["crop_height", "crop_width"]].to_numpy())) == sizes
    report = built.report
    assert report["boxes"] == len(rows) == report["kept"] + sum(report["dropped"].values())
    assert report["dropped"]["low score"] == sum(row[6] <= 0.72 for row in rows)
    assert f"{len(expected)}  crops kept" in describe_report(report, vars(config))


def test_the_released_tree_and_pickles(tmp_path):
    random = np.random.default_rng(0)
    names = ["china/beijing/china+beijing+aaaaaaaaaaa", "china/wuhan/china+wuhan+bbbbbbbbbbb", "peru/lima/peru+lima+cc"]
    expected = {}
    for name in names:
        file = tmp_path / "videos" / f"{name}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_video(file, 12)
        boxes = OrderedDict()
        for frame in (9, 2, 5):
            corners = random.uniform(0, 60, (2, 2))
            boxes[frame] = [
                (index, {"bbox": np.array([x, y, x + 50.4, y + 60.4]), "score": np.float32(0.9)})
                for index, (x, y) in zip((4, 1), corners, strict=True)
            ]
        (tmp_path / "dets").mkdir(exist_ok=True)
        (tmp_path / "dets" / f"{file.stem}.pkl").write_bytes(pickle.dumps(boxes))
        expected[name] = [
            (frame, *box["bbox"].round().astype(int))
            for frame in sorted(boxes)
            for _, box in sorted(boxes[frame], key=lambda one: one[0])
        ]
    config = replace(ALL, min_aspect=1)
    build(tmp_path / "videos", tmp_path / "dets", tmp_path / "store", config)
    store = Store(tmp_path / "store")
    index = store.index()
    places = {"00_00_0000": names[0], "00_01_0000": names[1], "01_00_0000": names[2]}
    for prefix, name in places.items():
        rows = index[index["key"].str.startswith(prefix)]
        assert list(rows["key"]) == [f"{prefix}_{i:08d}" for i in range(6)]
        assert set(zip(rows["country"], rows["city"], rows["video"], strict=True)) == {tuple(name.split("/"))}
        assert list(rows["frame"]) == [frame for frame, *_ in expected[name]]
        sides = [(y1 - y0, x1 - x0) for _, x0, y0, x1, y1 in expected[name]]
        assert list(map(tuple, rows[["crop_height", "crop_width"]].to_numpy())) == sides


def test_what_is_broken_is_counted_and_named_and_the_rest_goes_on(tmp_path):
    videos, boxes = write_videos(
        tmp_path, ["good", "lonely", "garbage", "short", "late", "large", "sound", "unreadable"]
    )
    (boxes / "lonely.txt").unlink()
    (videos / "garbage.avi").write_bytes(b"this is no video" * 100)
    write_boxes(boxes / "short.txt", 200)
    cut_off(write_video(videos / "short.avi", 200), 0.6)
    write_boxes(boxes / "late.txt", 60)
    write_boxes(boxes / "large.txt", 20, size=(2560, 1280))
    write_sound(tmp_path / "sound.wav").replace(videos / "sound.avi")
    (boxes / "unreadable.txt").write_bytes(np.random.default_rng(0).bytes(500))
    write_boxes(boxes / "elsewhere.txt", 5)
    with open(boxes / "good.txt", "a") as stream:
        stream.write("3,1,10,nan,20,40,0.9\nhello\n4,1,9999,9999,30,60,0.9,-1,-1,-1\n")
    report = build(videos, boxes, tmp_path / "store", ALL).report
    problems = {problem: " ".join(found["first"]) for problem, found in report["problems"].items()}
    assert {problem: found["count"] for problem, found in report["problems"].items()} == {
        "video without detections": 1,
        "video that cannot be opened": 2,
        "video that breaks off": 1,
        "detections of another video": 2,
        "detections that cannot be read": 1,
        "detection file without a video": 1,
    }
    assert "lonely.avi" in problems["video without detections"]
    assert "garbage.avi" in problems["video that cannot be opened"]
    assert "short.avi" in problems["video that breaks off"]
    assert "late.avi" in problems["detections of another video"]
    assert "--frame-height" in problems["detections of another video"]
    assert "elsewhere.txt" in problems["detection file without a video"]
    assert report["boxes"] == report["kept"] + sum(report["dropped"].values())
    assert report["dropped"]["outside the frame"] == 1
    assert sum(count for reason, count in report["dropped"].items() if reason.startswith("unusable")) == 2
    assert report["dropped"]["frame not decoded"] > 0
    index = Store(tmp_path / "store").index()
    assert set(index["video"]) == {"good", "short"}
    alone = build(videos / "good.avi", boxes / "good.txt", tmp_path / "alone", ALL)
    assert alone.report["kept"] == int((index["video"] == "good").sum())
    text = describe_report(report, vars(ALL))
    assert "video that breaks off: short.avi" in text


def test_processes_and_shards_make_the_same_bytes(tmp_path):
    videos, boxes = write_videos(tmp_path, ["a/x/1", "a/x/2", "a/y/1", "b/z/1", "b/z/2"], 10)
    build(videos, boxes, tmp_path / "one", ALL)
    build(videos, boxes, tmp_path / "two", ALL, workers=2)
    for number in range(3):
        build(videos, boxes, tmp_path / "shards", ALL, shard=(number, 3))
    merge([tmp_path / "shards"], tmp_path / "three")
    assert tree(tmp_path / "one") == tree(tmp_path / "two") == tree(tmp_path / "three")
    assert merge([tmp_path / "shards"], tmp_path / "three").there
    merge([tmp_path / "shards"], tmp_path / "shards")  # into the folder that holds them
    whole = tree(tmp_path / "one")
    assert {name: content for name, content in tree(tmp_path / "shards").items() if name in whole} == whole
    assert len(Store(tmp_path / "shards")) == len(Store(tmp_path / "one"))


def test_merging_checks_that_all_shards_are_there_and_whole(tmp_path):
    videos, boxes = write_videos(tmp_path, ["1", "2", "3", "4"], 6)
    first, second = tmp_path / "m1", tmp_path / "m2"
    build(videos, boxes, first, ALL, shard=(0, 2))
    with pytest.raises(InputError, match="shard 1 of 2 is missing"):
        merge([first], tmp_path / "store")
    with pytest.raises(InputError, match="holds no shard"):
        merge([first, videos], tmp_path / "store")
    build(videos, boxes, second, replace(ALL, quality=80), shard=(1, 2))
    with pytest.raises(InputError, match="another build"):
        merge([first, second], tmp_path / "store")
    shutil.rmtree(second)
    build(videos, boxes, second, ALL, shard=(1, 2))
    shutil.copytree(second, tmp_path / "copy")
    with pytest.raises(InputError, match="shard 1 of 2 is there twice"):
        merge([first, second, tmp_path / "copy"], tmp_path / "store")
    part = next((second / "shard-1-of-2" / "parts").glob("*.jpegs"))
    content = part.read_bytes()
    part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match="is not what was written"):
        merge([first, second], tmp_path / "store")
    part.write_bytes(content)
    (second / "shard-1-of-2" / "shard.json").rename(second / "kept.json")
    with pytest.raises(InputError, match="no shard; run its build again"):
        merge([first, second], tmp_path / "store")
    (second / "kept.json").rename(second / "shard-1-of-2" / "shard.json")
    build(videos, boxes, tmp_path / "whole", ALL)
    merge([second, first / "shard-0-of-2"], tmp_path / "store")
    assert tree(tmp_path / "store") == tree(tmp_path / "whole")


Death = tuple[str, int, float]  # a stage of the build, how many steps of it are done, and seconds after that


def build_and_die(arguments: tuple, death: Death | None) -> None:
    """Build in small transactions, so that there is much to interrupt, and be killed on the way."""
    store_writer.BATCH_BYTES, store_writer.MAP_STEP = 50_000, 65_536
    steps: Counter[str] = Counter()

    def progress(stage: str, *_) -> None:
        if death and death[:2] == (stage, steps[stage]):
            threading.Timer(death[2], os.kill, (os.getpid(), signal.SIGKILL)).start()
            time.sleep(0 if death[2] else 60)
        steps[stage] += 1

    def clean(folder: Path) -> None:
        progress("cleaning")  # the store is there, what was needed for it is there as well
        packing.clean(folder)

    build_module.clean = clean
    progress("cutting")  # step 0, before anything is cut
    build(*arguments, progress=progress)


class Builds:
    """Builds of one store in processes of their own, in peace or killed."""

    def __init__(self, folder: Path, videos: Path, boxes: Path, workers: int):
        self.folder, self.inputs, self.workers = folder, (videos, boxes), workers
        self.context = multiprocessing.get_context("forkserver")  # starts quickly what has been imported
        self.context.set_forkserver_preload(["lab.data.video.build", "test_build"])

    def run(self, out: str, death: Death | None = None) -> int:
        arguments = (*self.inputs, self.folder / out, ALL, self.workers)
        process = self.context.Process(target=build_and_die, args=(arguments, death))
        process.start()
        process.join()
        return process.exitcode

    def check_that_killing_changes_nothing(self, deaths: list[Death]) -> int:
        """Compare all bytes of a build that went through these deaths with one in peace; returns how often it died."""
        codes = [self.run("broken", death) for death in deaths]
        assert self.run("broken") == 0
        assert self.run("whole") == 0
        assert tree(self.folder / "broken") == tree(self.folder / "whole")
        return codes.count(-signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_build_that_is_killed_goes_on_and_ends_with_the_same_bytes(tmp_path, workers):
    videos, boxes = write_videos(tmp_path, ["1", "2", "3", "4"], 60)
    deaths = [("cutting", 1, 0), ("cutting", 3, 0), ("packing", 0, 0), ("cleaning", 0, 0)]
    if workers == 1:
        deaths += [("packing", 0, 0.004), ("packing", 1, 0)]
    assert Builds(tmp_path, videos, boxes, workers).check_that_killing_changes_nothing(deaths) >= 2


def test_a_part_is_made_again_only_if_its_video_or_boxes_changed(tmp_path):
    videos, boxes = write_videos(tmp_path, ["1", "2"], 8)
    build(videos, boxes, tmp_path / "s", ALL, shard=(0, 1))
    folder = tmp_path / "s" / "shard-0-of-1"
    (folder / "shard.json").rename(folder / "unfinished.json")
    (folder / "unfinished.json").write_text(json.dumps(json.loads((folder / "unfinished.json").read_text())["source"]))
    assert build(videos, boxes, tmp_path / "s", ALL, shard=(0, 1)).crops == 0
    rows = write_boxes(boxes / "2.txt", 8, seed=77)
    (folder / "unfinished.json").write_text(json.dumps(json.loads((folder / "shard.json").read_text())["source"]))
    (folder / "shard.json").unlink()
    made = build(videos, boxes, tmp_path / "s", ALL, shard=(0, 1)).crops
    assert made == len(crops_by_hand(videos / "2.avi", rows, ALL))


class Deadly(Job):
    """A job whose video ends the process that decodes it, like a fault in a codec."""

    def inputs(self) -> list:
        if self.name == "deadly.avi" and multiprocessing.parent_process() is not None:
            os._exit(11)
        return super().inputs()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_video_that_ends_its_process_is_named_and_the_others_are_cut(tmp_path, monkeypatch, workers):
    videos, boxes = write_videos(tmp_path, ["deadly", "good", "other", "third"], 8)
    monkeypatch.setattr(build_module, "Job", Deadly)
    if workers == 1:  # it has ended the build once, and left its mark
        (tmp_path / "store" / "parts").mkdir(parents=True)
        (tmp_path / "store" / "parts" / "00_00_0000.begun").touch()
        (tmp_path / "store" / "unfinished.json").write_text(json.dumps(list_inputs(videos, boxes).plan(ALL)))
    report = build(videos, boxes, tmp_path / "store", ALL, workers).report
    assert report["problems"] == {CRASHED: {"count": 1, "first": ["deadly.avi"]}}
    assert set(Store(tmp_path / "store").index()["video"]) == {"good", "other", "third"}


def test_what_was_packed_of_other_boxes_is_packed_anew(tmp_path, monkeypatch):
    videos, boxes = write_videos(tmp_path, ["1", "2", "3"], 20)
    monkeypatch.setattr(store_writer, "BATCH_BYTES", 10_000)

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "packing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(videos, boxes, tmp_path / "store", ALL, progress=stop)
    write_boxes(boxes / "1.txt", 20, seed=55)
    build(videos, boxes, tmp_path / "store", ALL)
    build(videos, boxes, tmp_path / "fresh", ALL)
    assert tree(tmp_path / "store") == tree(tmp_path / "fresh")


def test_a_finished_store_of_other_boxes_is_refused_and_left_as_it_is(tmp_path):
    videos, boxes = write_videos(tmp_path, ["1", "2"], 10)
    build(videos, boxes, tmp_path / "store", ALL)
    before = tree(tmp_path / "store")
    write_boxes(boxes / "2.txt", 12, seed=9)
    with pytest.raises(InputError, match="other names or sizes"):
        build(videos, boxes, tmp_path / "store", ALL)
    assert tree(tmp_path / "store") == before


def test_the_place_of_the_videos_on_the_machine_does_not_matter(tmp_path):
    for place in ("here", "there/deep"):
        videos, boxes = write_videos(tmp_path / place, ["a/x/1", "a/x/2", "a/x/3"], 8)
        (videos / "a/x/2.avi").write_bytes(b"no video")
        (boxes / "a/x/3.txt").write_text("no boxes\n")
        build(videos, boxes, tmp_path / place / "store", ALL)
    assert tree(tmp_path / "here" / "store") == tree(tmp_path / "there/deep" / "store")


def test_hidden_files_of_others_are_not_touched(tmp_path):
    videos, boxes = write_videos(tmp_path, ["1"], 8)
    out = tmp_path / "out"
    for name in (".env.local", ".lock", ".cache.d/x"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    before = tree(out)
    with pytest.raises(InputError, match="not a store"):
        build(videos, boxes, out, ALL)
    assert tree(out) == before


def test_a_build_that_keeps_nothing_says_why_and_may_be_tried_again(tmp_path):
    videos, boxes = write_videos(tmp_path, ["1"], 8)
    with pytest.raises(NothingKeptError, match="became a crop") as caught:
        build(videos, boxes, tmp_path / "store", BuildConfig(min_width=200))
    assert sum(caught.value.report["dropped"].values()) == caught.value.report["boxes"] > 0
    build(videos, boxes, tmp_path / "store", ALL)
    assert len(Store(tmp_path / "store")) > 0


@pytest.fixture
def detector(monkeypatch):
    """Settings with a detector that finds one person at a place of its own in each frame, and the list of its frames."""
    seen = []

    def detect(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append(number_of(rgb))
        return np.array([[10.0 + number_of(rgb) % 50, 30, 20, 60]]), np.array([0.9])

    monkeypatch.setattr(build_module, "_check_models", lambda config: None)
    monkeypatch.setattr(cutting, "_detector", lambda config: detect)
    return replace(ALL, detector="ssdlite320_mobilenet_v3_large", detect_every=4), seen


def test_a_detector_finds_the_people_and_its_boxes_can_be_used_again(tmp_path, detector):
    config, seen = detector
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "1.avi", 30)
    with pytest.raises(NothingKeptError):
        build(tmp_path / "videos", None, tmp_path / "store", replace(config, min_width=100))
    assert seen == list(range(1, 31, 4))
    build(tmp_path / "videos", None, tmp_path / "store", config)
    assert seen == list(range(1, 31, 4))  # nothing was detected again
    store = Store(tmp_path / "store")
    assert list(store.index()["frame"]) == seen
    assert list(store.index()["x"]) == [10 + number for number in seen]
    again = replace(config, detector=None)
    build(tmp_path / "videos", tmp_path / "store" / "detections", tmp_path / "again", again)
    assert (tmp_path / "again/lmdb/data.mdb").read_bytes() == (tmp_path / "store/lmdb/data.mdb").read_bytes()


def test_a_video_that_breaks_off_under_a_detector_is_named(tmp_path, detector):
    config, seen = detector
    (tmp_path / "videos").mkdir()
    cut_off(write_video(tmp_path / "videos" / "short.avi", 200), 0.6)
    report = build(tmp_path / "videos", None, tmp_path / "store", config).report
    assert "video that breaks off" in report["problems"]
    assert 0 < report["kept"] == len(seen) < 50


def test_inputs_that_do_not_fit_together_are_refused(tmp_path):
    videos, boxes = write_videos(tmp_path, ["1"], 4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="either --detections"):
        build(videos, None, tmp_path / "store", ALL)
    with pytest.raises(InputError, match="no video"):
        build(tmp_path / "empty", boxes, tmp_path / "store", ALL)
    with pytest.raises(InputError, match="no detection file"):
        build(videos, tmp_path / "empty", tmp_path / "store", ALL)
    write_boxes(tmp_path / "others" / "unknown.txt", 4)
    with pytest.raises(InputError, match="none of the 1 video"):
        build(videos, tmp_path / "others", tmp_path / "store", ALL)
    assert not (tmp_path / "store").exists()
    with pytest.raises(InputError, match="quality is 0; expected 1 to 100"):
        BuildConfig(quality=0)


def test_tracklets_are_numbered_over_the_store(tmp_path):
    videos, boxes = write_videos(tmp_path, ["1", "2"], 10)
    build(videos, boxes, tmp_path / "store", ALL)
    store = Store(tmp_path / "store")
    index = store.index()
    pids = pickle.loads((tmp_path / "store" / "keys.pkl").read_bytes())["pids"]
    assert pd.Series(pids).groupby([index["video"], index["track"]]).nunique().eq(1).all()
    assert len(set(pids)) == len(index.groupby(["video", "track"]))


def test_a_video_is_named_by_its_folders():
    root = Path("/v")
    files = [root / name for name in ("a/b/1.mp4", "a/b/c/1.mp4", "a/2.mp4", "3.mp4", "3.avi")]
    assert list(name_places(files, root).values()) == [
        ("a", "b", "1"),
        ("a", "b/c", "1"),
        ("a", "", "2"),
        ("", "", "3.mp4"),
        ("", "", "3.avi"),
    ]
    alike = [root / name for name in ("a.avi", "a.mp4", "a.mp4.mkv", "b.mp4")]
    names = [place[2] for place in name_places(alike, root).values()]
    assert names == ["a.avi", "a.mp4", "a.mp4.mkv", "b.mp4"]


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        (None, {}, None),
        ("0/4", {}, (0, 4)),
        ("4/4", {}, (0, 4)),
        ("3/4", {"RANK": "0", "WORLD_SIZE": "2"}, (3, 4)),
        ("0/1", {"RANK": "0", "WORLD_SIZE": "2"}, None),
        (None, {"RANK": "1", "WORLD_SIZE": "2"}, (1, 2)),
        (None, {"RANK": "0", "WORLD_SIZE": "1"}, None),
        (None, {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "1"}, (2, 4)),
        (
            None,
            {
                "SLURM_ARRAY_TASK_ID": "6",
                "SLURM_ARRAY_TASK_COUNT": "4",
                "SLURM_ARRAY_TASK_MIN": "0",
                "SLURM_ARRAY_TASK_STEP": "2",
            },
            (3, 4),
        ),
    ],
)
def test_the_share_of_a_machine(text, environment, expected):
    assert find_shard(text, environment) == expected


@pytest.mark.parametrize("text", ["5/4", "a/b", "1", "0/0", "-1/3"])
def test_a_wrong_share_is_refused(text):
    with pytest.raises(InputError, match="expected I/N"):
        find_shard(text, {})


def test_a_slurm_array_with_gaps_is_refused():
    gaps = {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "1"}
    with pytest.raises(InputError, match="give --shard"):
        find_shard(None, gaps)


@pytest.mark.skipif(not PETS.is_dir(), reason=f"no video at {PETS}")
def test_pets_killed_at_ten_moments_is_identical(tmp_path):
    builds = Builds(tmp_path, PETS / "vtest.avi", PETS / "det.txt", 1)
    started = time.monotonic()
    assert builds.run("timed") == 0
    seconds, random = time.monotonic() - started, np.random.default_rng(5)
    deaths = [("cutting", 0, random.uniform(0, 0.3) * seconds) for _ in range(5)]
    deaths += [("packing", int(random.integers(0, 4)), random.uniform(0, 0.01)) for _ in range(5)]
    assert builds.check_that_killing_changes_nothing(deaths) >= 5
    assert Store(tmp_path / "whole").about["report"]["boxes"] == 4359
