"""`lab data`: the whole way from videos to pre-training, refusals in one sentence, and whatever is broken is counted."""

import json
import pickle
import shutil

import lmdb
import numpy as np
import pytest
from test_build import write_boxes, write_videos
from test_cli import TINY_PRETRAIN, lab, refused, snapshot
from videos import write_video

from lab.data.store import Store

LOOSE = "--min-score 0.3 --min-width 8 --min-aspect 0.5 --max-aspect 10 --workers 1".split()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Videos and boxes of four streets in two countries."""
    return write_videos(tmp_path_factory.mktemp("inputs"), ["a/x/1", "a/x/2", "a/y/1", "b/z/1"], 30)


@pytest.fixture(scope="module")
def store(inputs, tmp_path_factory, request):
    from lab.data.video.build import build
    from lab.data.video.settings import BuildConfig

    folder = tmp_path_factory.mktemp("built") / "store"
    build(*inputs, folder, BuildConfig(min_score=0.3, min_width=8, min_aspect=0.5, max_aspect=10))
    return folder


def test_from_videos_to_a_pretrained_trunk(capsys, inputs, store, tmp_path):
    build = ["data", "build", "--videos", inputs[0], "--detections", inputs[1], "--out", tmp_path / "s", *LOOSE]
    code, out, _ = lab(capsys, *build)
    assert code == 0
    assert "4 video(s)" in out
    assert "crops kept" in out
    assert f"wrote {tmp_path / 's'}" in out
    assert snapshot(tmp_path / "s") == snapshot(store)
    assert "is there already" in lab(capsys, *build)[1]
    code, out, _ = lab(capsys, "data", "info", tmp_path / "s")
    assert code == 0
    assert "00_00_0000_00000000: image 0 of video 0 (1) of city 0 (x) of country 0 (a)" in out
    assert "LUPerson's 0.3525" in out
    few = ["--batch-size", "64", "--queue-size", "64"]  # steps
    code, out, error = lab(
        capsys, "pretrain", "--data", tmp_path / "s", "--out", tmp_path / "run", *TINY_PRETRAIN, *few
    )
    assert code == 0, error
    assert (tmp_path / "run" / "checkpoint.pt").is_file()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["images"] == len(Store(store))


@pytest.mark.parametrize("way", ["option", "torchrun", "slurm"])
def test_shards_of_several_machines_become_the_same_store(capsys, inputs, store, tmp_path, monkeypatch, way):
    build = ["data", "build", "--videos", inputs[0], "--detections", inputs[1], "--out", tmp_path / "parts", *LOOSE]
    for number in range(2):
        more = ["--shard", f"{number + 1}/2"] if way == "option" else []
        if way == "torchrun":
            monkeypatch.setenv("RANK", str(number))
            monkeypatch.setenv("WORLD_SIZE", "2")
        elif way == "slurm":
            for name, value in (("ID", number), ("COUNT", 2), ("MIN", 0)):
                monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
        code, out, error = lab(capsys, *build, *more)
        assert code == 0, error
        assert f"shard {(number + (way == 'option')) % 2} of 2: one video in 2" in out
        assert "lab data merge" in out
    assert sorted(entry.name for entry in (tmp_path / "parts").iterdir()) == ["shard-0-of-2", "shard-1-of-2"]
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    sentence = refused(capsys, "pretrain", "--data", tmp_path / "parts", "--out", tmp_path / "run")
    assert "lab data merge" in sentence
    assert lab(capsys, "data", "merge", tmp_path / "parts", "--out", tmp_path / "s")[0] == 0
    assert snapshot(tmp_path / "s") == snapshot(store)


def test_there_and_back(capsys, store, tmp_path):
    for form in ("jpeg", "webdataset"):
        assert lab(capsys, "data", "export", store, "--out", tmp_path / form, "--format", form)[0] == 0
    files = sorted((tmp_path / "jpeg").rglob("*.jpg"))
    original = Store(store)
    assert [file.stem for file in files] == [original.name(i) for i in range(len(original))]
    assert [file.read_bytes() for file in files] == [original.read(i) for i in range(len(original))]
    for form in ("jpeg", "webdataset"):
        assert lab(capsys, "data", "import", tmp_path / form, "--out", tmp_path / f"from-{form}")[0] == 0
        again = Store(tmp_path / f"from-{form}")
        assert np.array_equal(again.keys, original.keys)
        assert all(again.read(i) == original.read(i) for i in range(len(original)))


def test_overlap_finds_a_test_image_and_writes_the_pairs(capsys, market, tmp_path):
    (tmp_path / "crops").mkdir()
    for file in sorted((market / "bounding_box_train").iterdir())[:5]:
        shutil.copy(file, tmp_path / "crops")
    leak = sorted((market / "query").iterdir())[3]
    shutil.copy(leak, tmp_path / "crops" / "zz.jpg")
    command = ["data", "overlap", tmp_path / "crops", "--dataset", "market1501", "--root", market]
    code, out, _ = lab(capsys, *command, "--out", tmp_path / "pairs.csv")
    assert code == 0
    assert f"zz.jpg is {leak}" in out
    assert str(leak) in (tmp_path / "pairs.csv").read_text()
    code, out, _ = lab(capsys, "data", "import", tmp_path / "crops", "--out", tmp_path / "all")
    assert code == 0
    for source, listed in ((tmp_path / "crops", "pairs.csv"), (tmp_path / "all", "pairs-of-all.csv")):
        pairs = tmp_path / listed
        lab(capsys, "data", "overlap", source, "--dataset", "market1501", "--root", market, "--out", pairs)
        out = tmp_path / f"clean-{source.name}"
        assert lab(capsys, "data", "import", source, "--out", out, "--without", pairs)[0] == 0
        kept = Store(out)
        assert len(kept) == 5
        assert leak.read_bytes() not in [kept.read(i) for i in range(5)]
        assert list(kept.index()["path"]) == [f"{file.name}" for file in sorted((tmp_path / "crops").iterdir())[:5]]
    sentence = refused(capsys, "data", "import", market, "--out", tmp_path / "x", "--without", tmp_path / "pairs.csv")
    assert "names 1 images, of which 0 are at" in sentence


def test_a_download_is_planned_and_not_made(capsys, tmp_path):
    (tmp_path / "vname.txt").write_text("china+beijing+aaaaaaaaaa0\nperu+lima+-bbbbbbbbb1\n")
    code, out, _ = lab(capsys, "data", "download", tmp_path / "vname.txt", "--out", tmp_path / "videos")
    assert code == 0
    assert "research" in out
    assert "china/beijing/china+beijing+aaaaaaaaaa0.mp4" in (tmp_path / "videos" / "download.sh").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("build --videos {nowhere} --detections {boxes} --out {out}", "there is nothing at"),
        ("build --videos {videos} --detections {nowhere} --out {out}", "nowhere"),
        ("build --videos {videos} --out {out}", "either --detections FILE_OR_DIR or --detector"),
        ("build --videos {videos} --detections {boxes} --out {out} --quality 0", "expected 1 to 100"),
        ("build --videos {videos} --detections {boxes} --out {out} --shard 3", "expected I/N"),
        ("build --videos {videos} --detections {boxes} --out {out} --workers 0", "expected at least 1"),
        ("build --videos {videos} --detections {boxes} --out {out} --min-width 5000", "became a crop"),
        ("build --videos {videos} --detections {boxes} --out {text}", "cannot write|is not a store"),
        ("build --videos {videos} --detections {boxes} --out {boxes}", "already holds something"),
        ("build --videos {videos} --detector yolo --out {out}", "yolo"),
        ("merge {videos} --out {out}", "holds no shard"),
        ("import {nowhere} --out {out}", "nowhere"),
        ("import {empty} --out {out}", "empty"),
        ("export {empty} --out {out}", "there is no|nothing"),
        ("export {store} --out {out} --shard-mb 0", "at least 1"),
        ("export {store} --out {store}/files", "which is read"),
        ("info {nowhere}", "nowhere"),
        ("overlap {nowhere} --dataset market1501 --root {market}", "nowhere"),
        ("overlap {store} --dataset market1501 --root {market} --out {out}", "ends in .csv"),
        ("download {nowhere} --out {out}", "cannot be read"),
    ],
)
def test_bad_input_is_one_sentence_and_loses_nothing(capsys, inputs, store, market, tmp_path, arguments, sentence):
    import re

    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("words")
    names = {"videos": inputs[0], "boxes": inputs[1], "store": store, "market": market}
    names |= {name: tmp_path / name for name in ("nowhere", "empty", "text", "out")}
    before = snapshot(tmp_path) | snapshot(inputs[0].parent)
    said = refused(capsys, "data", *arguments.format(**names).split())
    assert re.search(sentence, said), said
    assert snapshot(tmp_path) | snapshot(inputs[0].parent) == before


def test_mutated_detection_files_are_counted_and_nothing_else_happens(capsys, tmp_path):
    random, count = np.random.default_rng(0), 120
    video = write_video(tmp_path / "video.avi", 12)
    good = write_boxes(tmp_path / "good.txt", 12)
    boxes = {
        1: [(0, {"bbox": np.array([10.0, 10, 50, 90]), "score": 0.9})],
        7: [(2, {"bbox": np.array([1.0, 2, 40, 70])})],
    }
    originals = {"txt": (tmp_path / "good.txt").read_bytes(), "pkl": pickle.dumps(boxes)}
    (tmp_path / "videos").mkdir()
    (tmp_path / "boxes").mkdir()
    for number in range(count):
        (tmp_path / "videos" / f"{number:03d}.avi").hardlink_to(video)
        kind = "txt" if number % 2 else "pkl"
        content = bytearray(originals[kind])
        for _ in range(random.integers(0, 8)):
            content[random.integers(len(content))] = random.integers(256)
        content = content[: random.integers(1, len(content) + 1)] if number % 3 == 0 else content
        (tmp_path / "boxes" / f"{number:03d}.{kind}").write_bytes(content)
    command = [
        "data",
        "build",
        "--videos",
        tmp_path / "videos",
        "--detections",
        tmp_path / "boxes",
        "--out",
        tmp_path / "s",
    ]
    code, out, error = lab(capsys, *command, *LOOSE)
    assert code == 0, error
    report = Store(tmp_path / "s").about["report"]
    assert report["videos"] == count
    assert report["boxes"] == report["kept"] + sum(report["dropped"].values())
    named = sum(found["count"] for found in report["problems"].values())
    assert 10 < named < count
    assert f"{report['kept']:,}  crops kept" in out
    assert len(good) > 0


def test_mutated_records_are_counted_on_import(capsys, store, tmp_path):
    random, original = np.random.default_rng(1), Store(store)
    with (
        lmdb.open(str(tmp_path / "lmdb"), map_size=1 << 26) as environment,
        environment.begin(write=True) as transaction,
    ):
        for number in range(500):
            record = bytearray(original.read(number % len(original)))
            for _ in range(random.integers(0, 6)):
                record[random.integers(len(record))] = random.integers(256)
            record = record[: random.integers(1, len(record) + 1)] if number % 4 == 0 else record
            transaction.put(f"00_00_0000_{number:08d}".encode(), bytes(record))
    code, out, error = lab(capsys, "data", "import", tmp_path / "lmdb", "--out", tmp_path / "s")
    assert code == 0, error
    kept = len(Store(tmp_path / "s"))
    assert f"imported {kept:,} of 500 images" in out
    assert 100 < kept < 450
    assert f"{500 - kept:,}" in out
