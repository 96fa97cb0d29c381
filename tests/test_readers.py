"""Readers: the rules of each layout, what is counted and said, and what a wrong one is told."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import h5py
import numpy as np
import pandas as pd
import pytest
from pictures import write_person
from PIL import Image
from scipy.io import savemat
from shared_data import in_memory, name_list, needs_shared, split_file, touch, train_names

from lab.data import Split, load
from lab.data.crops import read_image
from lab.data.readers import DATASETS, PUBLISHED_COUNTS, DatasetName, count_report, list_images, queries_without_match
from lab.data.splits import apply_split_file
from lab.errors import InputError

PARTS = ("bounding_box_train", "query", "bounding_box_test")


def market_style(root: Path, train, query, gallery) -> Path:
    """Empty files of these names in Market-1501's layout."""
    for part, names in zip(PARTS, (train, query, gallery), strict=True):
        touch(root / part, names)
    return root


def counts(split: Split) -> tuple[int, int, int]:
    return len(split), split.num_ids, split.num_cameras


def differences(dataset) -> dict[tuple[str, str], str]:
    report = count_report(dataset)
    return report["differs"][report["differs"] != ""].to_dict()


def test_the_command_offers_every_data_set_and_each_is_described():
    assert get_args(DatasetName) == tuple(DATASETS)
    assert "withdrawn" in DATASETS["dukemtmc"]
    assert "never downloads" in DATASETS["dukemtmc"]
    assert "on request" in DATASETS["msmt17"]
    with pytest.raises(InputError, match=", ".join(DATASETS)):
        load("market", "anywhere")


def test_readers_need_neither_h5py_nor_scipy_before_a_mat_file_is_read():
    code = "import sys, lab.data.readers; sys.exit(bool({'h5py', 'scipy', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0


def test_market_drops_junk_keeps_distractors_and_sorts_by_name(market):
    dataset = load("market1501", market)
    assert (len(dataset.train), dataset.train.num_ids) == (48, 8)
    assert (len(dataset.query), dataset.query.num_ids, dataset.query.num_cameras) == (15, 5, 3)
    assert len(dataset.gallery) == 17
    assert (dataset.gallery.pid == 0).sum() == 2
    assert -1 not in dataset.gallery.pid
    assert any("1 junk" in note for note in dataset.notes)
    assert list(dataset.train.path) == sorted(dataset.train.path)
    assert os.path.isfile(dataset.query.path[0])
    assert dataset.summary().loc["gallery", "images"] == 17


def test_cameras_may_have_two_digits(tmp_path):
    for part in ("bounding_box_train", "query", "bounding_box_test"):
        write_person(tmp_path / part / "0000_c12_0036.jpg", 0, 12)
        write_person(tmp_path / part / "1500_c1_0036.jpg", 1500, 1)
    dataset = load("market1501", tmp_path)
    assert dataset.query.camid.tolist() == [12, 1]
    assert dataset.query.pid.tolist() == [0, 1500]


def test_queries_that_no_other_camera_saw_are_found():
    query = Split(["a", "b", "c"], [1, 2, 3], [1, 1, 1])
    gallery = Split(["d", "e", "f"], [1, 2, 2], [2, 1, 1])
    dataset = type("D", (), {"query": query, "gallery": gallery})
    assert queries_without_match(dataset).tolist() == [1, 2]


def csv_dataset(root, rows):
    for path, pid, _, _ in rows:
        write_person(root / path, int(float(pid)) if str(pid).lstrip("-").isdigit() else 1, 1)
    pd.DataFrame(rows, columns=["path", "pid", "camid", "split"]).to_csv(root / "people.csv", index=False)


ROWS = [
    ("a/1.jpg", 5, 1, "train"), ("a/2.jpg", 5, 2, "train"), ("b/3.png", 6, 1, "query"),
    ("b/4.jpg", 6, 2, "gallery"), ("b/5.jpg", -1, 2, "gallery"), ("b/6.jpg", 0, 3, "gallery"),
]  # fmt: skip


def test_folder_reads_a_csv_beside_its_images(tmp_path):
    csv_dataset(tmp_path, ROWS)
    dataset = load("folder", tmp_path)
    assert dataset.train.pid.tolist() == [5, 5]
    assert dataset.gallery.pid.tolist() == [6, 0]
    assert dataset.gallery.camid.tolist() == [2, 3]
    assert load("folder", tmp_path / "people.csv").query.path[0] == str(tmp_path / "b" / "3.png")
    assert dataset.notes == ("gallery: 1 junk image(s) (pid -1) dropped, as the protocol wants",)
    write_person(tmp_path / "a" / "new.jpg", 5, 1)
    note = "people.csv: 1 image(s) beside the listed ones are on no line and skipped (new.jpg)"
    assert note in load("folder", tmp_path).notes


def test_people_who_train_and_are_searched_for_are_named(tmp_path):
    csv_dataset(tmp_path, [*ROWS, ("a/7.jpg", 6, 4, "train"), ("a/8.jpg", 0, 4, "train")])
    note = (
        "people.csv: 1 person(s) are in train and in query (pid 6): a test on them is too good; train on other people"
    )
    assert note in load("folder", tmp_path).notes


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda root: (root / "people.csv").write_text("path,pid,split\na/1.jpg,5,train\n"), "no camid"),
        (
            lambda root: (root / "people.csv").write_text("path,pid,camid,split\na/1.jpg,x,1,train\n"),
            "line 2 has pid 'x'",
        ),
        (
            lambda root: (root / "people.csv").write_text("path,pid,camid,split\na/1.jpg,5,1,val\n"),
            "'val' in column split",
        ),
        (
            lambda root: (root / "people.csv").write_text("path,pid,camid,split\na/1.jpg,5,1,train\n"),
            "no image for query",
        ),
        (lambda root: (root / "b" / "4.jpg").unlink(), "1 image.s. that are not there"),
        (lambda root: (root / "more.csv").write_text("path\n"), "2 CSV files"),
    ],
)
def test_a_wrong_csv_is_explained(tmp_path, change, sentence):
    csv_dataset(tmp_path, ROWS)
    change(tmp_path)
    with pytest.raises(InputError, match=sentence):
        load("folder", tmp_path)


def test_wrong_market_layouts_are_explained(tmp_path, market):
    with pytest.raises(InputError, match="there is no folder"):
        load("market1501", tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"has no bounding_box_train, query, bounding_box_test .it holds nothing"):
        load("market1501", tmp_path)
    shutil.copytree(market, tmp_path / "Market-1501-v15.09.15")
    with pytest.raises(InputError, match="give --root .*Market-1501-v15.09.15"):
        load("market1501", tmp_path)
    with pytest.raises(InputError, match="no synthetic.json"):
        load("synthetic", market)
    with pytest.raises(InputError, match="there is no data set 'duke'"):
        load("duke", market)
    for name in ("market1501", "dukemtmc", "msmt17", "cuhk03"):
        with pytest.raises(InputError, match="is a file; expected"):
            load(name, market / "query" / "0020_c1s1_000001_00.jpg")


def test_an_empty_split_and_a_nameless_image_are_explained(tmp_path, market):
    shutil.copytree(market, tmp_path / "m")
    write_person(tmp_path / "m" / "query" / "holiday.jpg", 1, 1)
    with pytest.raises(InputError, match=r"1 image.s. in .*query carry no pid and camera .*holiday.jpg"):
        load("market1501", tmp_path / "m")
    shutil.rmtree(tmp_path / "m" / "query")
    (tmp_path / "m" / "query").mkdir()
    with pytest.raises(InputError, match="query holds no image"):
        load("market1501", tmp_path / "m")


def test_list_images_looks_below_and_refuses_none(tmp_path, market):
    assert len(list_images(market)) == 48 + 15 + 18
    with pytest.raises(InputError, match="holds no image"):
        list_images(tmp_path)


MARKET_LISTS = ("Market1501_bounding_box_train", "Market1501_query", "Market1501_bounding_box_test")


@pytest.fixture(scope="module")
def whole_market():
    with in_memory() as folder:
        yield market_style(Path(folder) / "whole", *map(name_list, MARKET_LISTS))


@pytest.fixture
def scratch():
    with in_memory() as folder:
        yield Path(folder)


@needs_shared
def test_market_1501_reaches_its_published_counts(whole_market):
    dataset = load("market1501", whole_market)
    assert counts(dataset.train) == (12936, 751, 6)
    assert counts(dataset.query) == (3368, 750, 6)
    assert counts(dataset.gallery) == (15913, 751, 6)  # 19,732 with junk
    assert "bounding_box_test: 3819 junk image(s) (pid -1) dropped, as the protocol wants" in dataset.notes
    assert "bounding_box_test: 2798 distractor(s) (pid 0) kept as negatives" in dataset.notes
    assert differences(dataset) == {}
    assert not len(queries_without_match(dataset))


@needs_shared
def test_market_without_distractors_is_recognised_and_can_be_asked_for(whole_market):
    asked = load("market1501-no-distractors", whole_market)
    assert asked.name == "market1501-no-distractors"
    assert counts(asked.gallery) == (13115, 750, 6)
    assert any("2798 distractor(s) (pid 0) left out" in note and "not comparable" in note for note in asked.notes)
    assert differences(asked) == {}

    gallery = whole_market / "bounding_box_test"
    distractors = [name for name in name_list(MARKET_LISTS[2]) if name.startswith("0000_")]
    for name in distractors:  # moved, not made anew: thirteen thousand files take a while
        os.rename(gallery / name, whole_market / name)
    copy = load("market1501", whole_market)
    for name in distractors:
        os.rename(whole_market / name, gallery / name)
    assert any("this copy has no distractors" in note and "not comparable" in note for note in copy.notes)
    assert differences(copy) == {("gallery", "images"): "-2798", ("gallery", "identities"): "-1"}


@pytest.mark.parametrize("folder", ["images", "distractors_500k", "distractors_500k/images"])
def test_extra_distractors_join_the_gallery_whatever_they_are_called(market, tmp_path, folder):
    shutil.copytree(market, tmp_path / "m")
    with pytest.raises(InputError, match="no folder distractors_500k/ or images/ with the 500,000"):
        load("market1501-500k", tmp_path / "m")
    names = ["0000_c3s1_000001_00.jpg", "-1_c2s1_000001_00.jpg", "00000017.jpg", "1200_c4s1_000001_00.jpg", "notes.txt"]
    touch(tmp_path / "m" / folder, names)
    dataset = load("market1501-500k", tmp_path / "m")
    assert len(dataset.gallery) == 17 + 4
    assert dataset.gallery.pid[17:].tolist() == [0, 0, 0, 0]
    assert dataset.gallery.camid[17:].tolist() == [2, 0, 3, 4]  # the order of their names; 0 where there is none
    assert any("4 extra distractor(s)" in note for note in dataset.notes)
    assert any("1 image(s) named like people" in note for note in dataset.notes)
    assert any("1 file(s) that are no image skipped (notes.txt)" in note for note in dataset.notes)
    assert len(load("market1501", tmp_path / "m").gallery) == 17
    assert count_report(dataset).loc[("gallery", "images"), "published"] == 515913


def test_nothing_in_a_folder_is_skipped_without_a_word(market, tmp_path):
    """Users added images and the count stayed: every file is read, refused or counted with a reason."""
    shutil.copytree(market, tmp_path / "m")
    touch(tmp_path / "m" / "query", ["Thumbs.db", "._0020_c1s1_000001_00.jpg", "0020_c1s1_000001_00.JPG"])
    touch(tmp_path / "m" / "query" / "more", ["0021_c1s1_000009_00.jpg"])
    dataset = load("market1501", tmp_path / "m")
    assert len(dataset.query) == 15 + 1
    assert "query: 1 file(s) that are no image skipped (Thumbs.db)" in dataset.notes
    assert "query: 1 hidden file(s) skipped (._0020_c1s1_000001_00.jpg)" in dataset.notes
    assert "query: 1 sub-folder(s) not looked into (more)" in dataset.notes


def test_counts_stand_beside_the_published_ones(market):
    report = count_report(load("market1501", market))
    assert report.loc[("train", "images")].tolist() == [48, 12936, "-12888"]
    assert report.loc[("gallery", "identities")].tolist() == [6, 751, "-745"]
    assert report.loc[("query", "cameras")].tolist() == [3, 6, "-3"]
    assert count_report(load("market1501", market)).shape == (9, 3)
    assert PUBLISHED_COUNTS["dukemtmc"]["gallery"] == (17661, 1110, 8)
    assert PUBLISHED_COUNTS["msmt17-v1"]["query"] == (11659, 3060, 15)
    assert PUBLISHED_COUNTS["msmt17-v2"]["gallery"] == (82161, 3060, 15)
    assert PUBLISHED_COUNTS["cuhk03-detected"]["gallery"] == (5332, 700, 2)


@needs_shared
@pytest.mark.parametrize(
    ("name", "data", "numbers", "edition", "few"),
    [
        ("dukemtmc", "duke", (16522, 702, 8), "dukemtmc", 1652),
        ("msmt17", "msmt17", (32621, 1041, 15), "msmt17-market", 3262),
        ("cuhk03-detected", "cuhk03_np/detected", (7365, 767, 2), "cuhk03-detected", 767),
    ],
)
def test_training_halves_reach_their_published_counts(scratch, name, data, numbers, edition, few):
    root = scratch / "root"
    place = root / "cuhk03_np" / data.split("/")[1] if "cuhk03" in name else root
    names = train_names(data)
    market_style(place, names, ["0005_c1_1.jpg", "0000_c2_1.jpg"], ["0005_c2_2.jpg", "0000_c1_1.jpg"])
    dataset = load(name, root)
    assert (dataset.name, dataset.edition) == (name, edition)
    assert counts(dataset.train) == numbers
    assert not [key for key in differences(dataset) if key[0] == "train"]
    assert not any("distractor" in note for note in dataset.notes)
    (scratch / "used.txt").write_text(split_file(data, "ims", 0.1))
    assert len(apply_split_file(dataset.train, scratch / "used.txt")) == few


MSMT_LISTS = {  # in the lists, test people count from 0 again
    "list_train.txt": ["0000/0000_000_01_0303morning_0015_0.jpg 0", "0001/0001_001_12_0303noon_0020_1.jpg 1"],
    "list_val.txt": ["0000/0000_002_15_0303morning_0016_0.jpg 0"],
    "list_query.txt": ["0000/0000_000_03_0114noon_0001_0.jpg 0", "0007/0007_000_10_0114noon_0002_0.jpg 7"],
    "list_gallery.txt": ["0000/0000_004_11_0114noon_0003_0.jpg 0", "0007/0007_005_01_0302noon_0004_0.jpg 7"],
}


def msmt17_tree(root: Path, train: str, test: str) -> Path:
    for name, lines in MSMT_LISTS.items():
        for line in lines:
            person, image = line.split()[0].split("/")
            touch(root / (train if name in ("list_train.txt", "list_val.txt") else test) / person, [image])
        (root / name).write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize(
    ("edition", "train", "test", "said"),
    [
        ("msmt17-v1", "train", "test", "MSMT17 V1 was read"),
        ("msmt17-v2", "mask_train_v2", "mask_test_v2", "V2 was read .*faces are blurred"),
    ],
)
def test_msmt17_is_read_from_its_lists(tmp_path, edition, train, test, said):
    root = msmt17_tree(tmp_path / "MSMT17", train, test)
    touch(root / train / "0001", ["0001_009_02_0303noon_0099_1.jpg"])
    dataset = load("msmt17", root)
    assert dataset.edition == edition
    assert re.search(said, dataset.notes[0])
    assert dataset.train.pid.tolist() == [0, 0, 1]  # list_val is part of the training set
    assert dataset.train.camid.tolist() == [1, 15, 12]
    assert dataset.query.camid.tolist() == [3, 10]
    assert dataset.query.pid.tolist() == [0, 7]
    assert dataset.gallery.camid.tolist() == [11, 1]
    assert all(os.path.isfile(path) for path in [*dataset.train.path, *dataset.query.path, *dataset.gallery.path])
    assert any("the same number is another person" in note for note in dataset.notes)
    assert not any("distractor" in note for note in dataset.notes)
    assert f"{train}: 1 image(s) that are on no list skipped (0001/0001_009_02_0303noon_0099_1.jpg)" in dataset.notes
    assert count_report(dataset).loc[("train", "images"), "published"] == 32621
    with pytest.raises(InputError, match="its folder MSMT17/ is: give --root .*MSMT17"):
        load("msmt17", tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda root: (root / "list_val.txt").unlink(), "no list_val.txt; expected the four lists"),
        (lambda root: (root / "list_query.txt").write_text("\n"), "list_query.txt lists no image"),
        (
            lambda root: (root / "list_query.txt").write_text("0000/0000_000_03_a.jpg\n"),
            "line 1 is '0000/0000_000_03_a.jpg'",
        ),
        (lambda root: (root / "list_query.txt").write_text("0000/photo.jpg 3\n"), "camera as third field"),
        (
            lambda root: shutil.rmtree(root / "test" / "0007"),
            r"2 listed image.s. are not in .*test .first: 0007/0007_000_10",
        ),
        (
            lambda root: shutil.rmtree(root / "test"),
            r"holds list_gallery.txt, .*expected train/ and test/ .V1. or mask",
        ),
    ],
)
def test_a_wrong_msmt17_is_explained(tmp_path, change, sentence):
    root = msmt17_tree(tmp_path, "train", "test")
    change(root)
    with pytest.raises(InputError, match=sentence):
        load("msmt17", root)


# --- cuhk-03.mat: one reference per pair of cameras, to a table (10 numbers, people) of references to images


class Mat:
    """A small cuhk-03.mat as MATLAB 7.3 writes it: axes reversed, an empty cell is a pair of zeros."""

    def __init__(self, file: Path):
        self.file = h5py.File(file, "w")
        self.empty = self.file.create_dataset("#refs#/empty", data=np.zeros(2, dtype=np.uint64)).ref
        self.count = 0

    def store(self, array) -> h5py.Reference:
        self.count += 1
        dtype = h5py.ref_dtype if array.dtype == object else None
        return self.file.create_dataset(f"#refs#/{self.count}", data=array, dtype=dtype).ref

    def image(self, pixels: np.ndarray) -> h5py.Reference:
        return self.store(np.ascontiguousarray(pixels.transpose(2, 1, 0)))  # (height, width, 3) -> (3, width, height)

    def boxes(self, kind: str, pairs: list[np.ndarray]) -> None:
        references = np.array([[self.store(pair) for pair in pairs]], dtype=object)  # (1, 5)
        self.file.create_dataset(kind, data=references, dtype=h5py.ref_dtype)

    def cells(self, people: int) -> np.ndarray:
        return np.full((10, people), self.empty, dtype=object)


def write_index(file: Path, names, labels, train, query, gallery) -> None:
    """The new protocol's index file; positions count from 1, as in MATLAB."""
    cells = np.empty((len(names), 1), dtype=object)
    cells[:, 0] = [np.array([name]) for name in names]
    content = {"train_idx": train, "query_idx": query, "gallery_idx": gallery, "labels": labels}
    savemat(file, {key: np.array(value)[:, None] for key, value in content.items()} | {"filelist": cells})


SMALL = ["1_001_1_01.png", "1_001_2_06.png", "1_003_1_02.png", "1_003_1_05.png", "1_003_2_10.png", "5_002_1_01.png",
         "5_002_2_07.png"]  # fmt: skip


def small_cuhk03(root: Path) -> dict[str, np.ndarray]:
    """Three people of two camera pairs as `labeled` boxes, images of all sizes; returns the pixels by listed name."""
    root.mkdir(exist_ok=True)
    mat, random, pictures = Mat(root / "cuhk-03.mat"), np.random.default_rng(0), {}
    pairs = [mat.cells(people) for people in (3, 1, 1, 1, 2)]
    for at, name in enumerate(SMALL):
        pair, person, _, number = (int(field) for field in name[:-4].split("_"))
        pictures[name] = random.integers(0, 256, (12 + at, 5, 3), dtype=np.uint8)
        pairs[pair - 1][number - 1, person - 1] = mat.image(pictures[name])
    mat.boxes("labeled", pairs)
    mat.file.close()
    index = root / "cuhk03_new_protocol_config_labeled.mat"
    write_index(index, SMALL, [1, 1, 3, 3, 3, 1420, 1420], [1, 2], [3, 5, 6, 7], [4])
    return pictures


def test_cuhk03_is_unpacked_once_from_the_original_file(tmp_path):
    pictures = small_cuhk03(tmp_path)
    dataset = load("cuhk03", tmp_path)
    names = {part: sorted(os.listdir(tmp_path / "labeled" / part)) for part in PARTS}
    assert names == {
        "bounding_box_train": ["0001_c1_1.png", "0001_c2_2.png"],
        "query": ["0003_c1_3.png", "0003_c2_5.png", "1420_c1_6.png", "1420_c2_7.png"],
        "bounding_box_test": ["0003_c1_4.png"],
    }
    assert dataset.query.pid.tolist() == [3, 3, 1420, 1420]
    assert dataset.query.camid.tolist() == [1, 2, 1, 2]
    for path in [*dataset.train.path, *dataset.query.path, *dataset.gallery.path]:
        listed = SMALL[int(Path(path).stem.split("_")[2]) - 1]
        assert (np.asarray(read_image(path)) == pictures[listed]).all()
    assert (dataset.name, dataset.edition) == ("cuhk03", "cuhk03-labeled")
    assert any("was unpacked into" in note for note in dataset.notes)

    (tmp_path / "cuhk-03.mat").unlink()  # the second time it is not needed
    again = load("cuhk03-labeled", tmp_path)
    assert (again.query.path == dataset.query.path).all()
    assert not any("unpacked" in note for note in again.notes)
    assert sorted(os.listdir(tmp_path)) == ["cuhk03_new_protocol_config_labeled.mat", "labeled"]
    with pytest.raises(InputError, match="holds the labeled boxes and the detected ones were asked for"):
        load("cuhk03-detected", tmp_path / "labeled")
    assert load("cuhk03", tmp_path / "labeled").edition == "cuhk03-labeled"


@needs_shared
def test_cuhk03_reaches_its_published_counts_from_the_original_file(scratch, monkeypatch):
    """All 14,096 places of the labelled boxes; every cell leads to one tiny picture, and empty files are written."""
    monkeypatch.setattr(Image.Image, "save", lambda _, file, **__: os.close(os.open(file, os.O_CREAT | os.O_WRONLY)))
    names = name_list("cuhk03_All_128x48_labeled")
    people = sorted({name[:5] for name in names})
    assert len(people) == 1467
    labels = [people.index(name[:5]) + 1 for name in names]
    train = [int(name[:-4].split("_")[2]) for name in train_names("cuhk03_np/labeled")]
    others = sorted(set(range(1, len(names) + 1)) - set(train))
    first = {names[at - 1][:7]: at for at in reversed(others)}  # the first image of each person and view
    query = sorted(first.values())
    (scratch / "cuhk03_release").mkdir()
    mat = Mat(scratch / "cuhk03_release" / "cuhk-03.mat")
    picture = mat.image(np.zeros((2, 1, 3), dtype=np.uint8))
    pairs = [mat.cells(number) for number in (843, 440, 77, 58, 49)]
    for name in names:
        pair, person, _, number = (int(field) for field in name[:-4].split("_"))
        pairs[pair - 1][number - 1, person - 1] = picture
    mat.boxes("labeled", pairs)
    mat.file.close()
    gallery = sorted(set(others) - set(query))
    write_index(scratch / "cuhk03_new_protocol_config_labeled.mat", names, labels, train, query, gallery)

    dataset = load("cuhk03", scratch)
    assert counts(dataset.train) == (7368, 767, 2)
    assert counts(dataset.query) == (1400, 700, 2)
    assert counts(dataset.gallery) == (5328, 700, 2)
    assert differences(dataset) == {}
    assert [os.path.basename(path) for path in dataset.train.path] == sorted(train_names("cuhk03_np/labeled"))
    os.renames(scratch / "labeled", scratch / "elsewhere" / "cuhk03_np" / "labeled")  # as the published copy comes
    for root in ("elsewhere", "elsewhere/cuhk03_np", "elsewhere/cuhk03_np/labeled"):
        copy = load("cuhk03", scratch / root)
        assert (len(copy.train), copy.edition) == (7368, "cuhk03-labeled")
    (scratch / "used.txt").write_text(split_file("cuhk03_np/labeled", "ims", 0.1))
    assert len(apply_split_file(copy.train, scratch / "used.txt")) == 767


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:500])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda root: (root / "cuhk-03.mat").unlink(), "expected labeled/ with bounding_box_train.*or cuhk-03.mat beside"),
        (lambda root: (root / "cuhk03_new_protocol_config_labeled.mat").unlink(), "no cuhk03_new_protocol_config_labeled"),
        (lambda root: cut_short(root / "cuhk-03.mat"), "cannot be read as a MATLAB 7.3"),
        (lambda root: cut_short(root / "cuhk03_new_protocol_config_labeled.mat"), "cannot be read .*index file"),
        (lambda root: write_index(root / "cuhk03_new_protocol_config_labeled.mat", SMALL, [1] * 6, [1], [2], [3]), "6 labels"),
        (lambda root: write_index(root / "cuhk03_new_protocol_config_labeled.mat", SMALL, [1] * 7, [0], [2], [3]), "positions"),
        (
            lambda root: write_index(
                root / "cuhk03_new_protocol_config_labeled.mat", ["1_002_1_01.png", *SMALL[1:]], [1] * 7, [1], [2], [3]
            ),
            "lists 1_002_1_01.png, and that cell of .* is empty",
        ),
        (
            lambda root: write_index(
                root / "cuhk03_new_protocol_config_labeled.mat", ["2_002_1_01.png", *SMALL[1:]], [1] * 7, [1], [2], [3]
            ),
            "lists 2_002_1_01.png, which cannot be found",
        ),
    ],
)  # fmt: skip
def test_wrong_cuhk03_files_are_explained_and_leave_nothing_behind(tmp_path, change, sentence):
    small_cuhk03(tmp_path)
    change(tmp_path)
    with pytest.raises(InputError, match=sentence):
        load("cuhk03", tmp_path)
    assert not [name for name in os.listdir(tmp_path) if "labeled" in name and not name.endswith(".mat")]


def test_cuhk03_says_what_it_lacks(tmp_path, monkeypatch):
    small_cuhk03(tmp_path)
    with pytest.raises(InputError, match="no cuhk03_new_protocol_config_detected.mat"):
        load("cuhk03-detected", tmp_path)
    shutil.copy(
        tmp_path / "cuhk03_new_protocol_config_labeled.mat", tmp_path / "cuhk03_new_protocol_config_detected.mat"
    )
    with pytest.raises(InputError, match="holds #refs#, labeled and no 'detected'"):
        load("cuhk03-detected", tmp_path)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "h5py", None)
        with pytest.raises(InputError, match="pip install h5py"):
            load("cuhk03", tmp_path)
    with monkeypatch.context() as patch:  # a test that runs as root can write anywhere

        def refuse(*_, **__):
            raise PermissionError(13, "Permission denied")

        patch.setattr("tempfile.mkdtemp", refuse)
        with pytest.raises(
            InputError, match="cannot be written .Permission denied. and cuhk-03.mat has to be unpacked"
        ):
            load("cuhk03", tmp_path)
    with monkeypatch.context() as patch:

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        patch.setattr(Image.Image, "save", full)
        with pytest.raises(InputError, match="cannot be written .No space left"):
            load("cuhk03", tmp_path)
    assert not [name for name in os.listdir(tmp_path) if not name.endswith(".mat")]
    (tmp_path / "labeled" / "query").mkdir(parents=True)
    (tmp_path / "cuhk-03.mat").unlink()
    with pytest.raises(InputError, match="labeled has no bounding_box_train, bounding_box_test .it holds query/"):
        load("cuhk03", tmp_path)


# --- two folders, one per camera


@needs_shared
@pytest.mark.parametrize(
    ("lists", "people", "train", "query"),
    [
        (("VIPeR_cam_a", "VIPeR_cam_b"), (316, 316), 632, 316),
        (("cuhk01_cam1", "cuhk01_cam2"), (485, 486), 1940, 972),
    ],
)
def test_two_folders_are_two_cameras(scratch, lists, people, train, query):
    for name in lists:
        touch(scratch / name, name_list(name))
    dataset = load("folder", scratch)
    assert (dataset.train.num_ids, dataset.query.num_ids) == people
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (train, query, query)
    assert dataset.train.num_cameras == 2
    assert set(dataset.query.camid) == {1}
    assert set(dataset.gallery.camid) == {2}
    assert all(f"{os.sep}{lists[0]}{os.sep}" in path for path in dataset.query.path)
    assert set(dataset.query.pid) == set(dataset.gallery.pid)
    assert not set(dataset.query.pid) & set(dataset.train.pid)
    assert not len(queries_without_match(dataset))
    assert any("seed 0" in note and "average over ten" in note for note in dataset.notes)
    assert count_report(dataset) is None
    assert (load("folder", scratch).train.path == dataset.train.path).all()
    assert set(load("folder", scratch, seed=1).train.pid) != set(dataset.train.pid)


def test_people_whom_one_camera_saw_are_told_apart(tmp_path):
    touch(tmp_path / "a", ["1_1.png", "2_1.png", "3_1.png", "7_1.png", "readme.txt"])
    touch(tmp_path / "b", ["1_2.png", "2_2.png", "3_2.png", "8_2.png", "9_2.png"])
    (tmp_path / "docs").mkdir()
    dataset = load("folder", tmp_path)
    assert len(dataset.train) == 2
    assert sorted(dataset.gallery.pid)[-2:] == [8, 9]
    assert len(dataset.query) == 2
    assert 7 not in dataset.query.pid
    assert any("a: images of 1 people whom only this camera saw skipped" in note for note in dataset.notes)
    assert any("b: 2 people whom only this camera saw stay in the gallery" in note for note in dataset.notes)
    assert "a: 1 file(s) that are no image skipped (readme.txt)" in dataset.notes
    assert "1 sub-folder(s) without images skipped (docs)" in dataset.notes


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ({}, r"holds 0 CSV files and 0 sub-folder.s. of images .it holds nothing"),
        ({"a": ["1_1.png"], "b": ["1_1.png"], "c": ["1_1.png"]}, r"and 3 sub-folder.s. of images .it holds a/, b/, c/"),
        ({"a": ["1_1.png", "x.png"], "b": ["1_1.png"]}, r"1 image.s. in .*a do not begin with a PID .first: x.png"),
        ({"a": ["1_1.png", "2_1.png"], "b": ["1_1.png", "3_1.png"]}, r"has 1 person.s. whom both cameras saw"),
    ],
)
def test_wrong_two_folder_sets_are_explained(tmp_path, names, sentence):
    for folder, files in names.items():
        touch(tmp_path / folder, files)
    with pytest.raises(InputError, match=sentence):
        load("folder", tmp_path)
