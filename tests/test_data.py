"""Splits, readers and crops: the rules of each layout, and what a wrong one is told."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import write_person
from PIL import Image

from lab.data import Split, load
from lab.data.crops import Crops, find_unreadable, read_image, resize, to_tensor
from lab.data.readers import list_images, queries_without_match
from lab.data.splits import few_ids
from lab.errors import InputError


def test_labels_count_people_from_zero_and_pids_stay_what_they_were():
    split = Split(["a", "b", "c", "d"], [7, 3, 7, 1500], [1, 1, 2, 10])
    assert split.labels.tolist() == [1, 0, 1, 2]
    assert split.pid.tolist() == [7, 3, 7, 1500]
    assert split.take(np.array([3, 1])).camid.tolist() == [10, 1]
    assert split.take(split.pid == 7).path.tolist() == ["a", "c"]


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


@pytest.mark.parametrize(
    ("fraction", "people"), [(0.1, 75), (0.3, 225), (0.5, 375), (0.7, 525), (0.9, 675), (1.0, 751), (0.0001, 1)]
)
def test_few_ids_takes_as_many_people_as_the_published_split_files(fraction, people):
    """Counts of Market-1501's 751 identities: those of LUPerson's few_ids files."""
    split = Split([f"{i}" for i in range(1502)], np.repeat(np.arange(751) * 2, 2), np.zeros(1502))
    kept = few_ids(split, fraction, seed=3)
    assert kept.num_ids == people
    assert len(kept) == 2 * people
    assert (few_ids(split, fraction, seed=3).path == kept.path).all()
    if fraction < 1:
        assert set(few_ids(split, fraction, seed=4).pid) != set(kept.pid)


def test_few_ids_refuses_a_fraction_that_is_none():
    split = Split(["a"], [1], [1])
    with pytest.raises(InputError, match=r"fraction of identities is 10"):
        few_ids(split, 10)


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


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_every_kind_of_picture_becomes_rgb(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new("RGB", (8, 16), (200, 100, 50)).convert("L" if mode == "I;16" else mode).save(tmp_path / f"p.{suffix}")
    image = read_image(tmp_path / f"p.{suffix}")
    assert (image.mode, image.size) == ("RGB", (8, 16))
    assert to_tensor(image).shape == (3, 16, 8)


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.new("RGB", (8, 16)).save(tmp_path / "p.jpg", exif=exif)
    assert read_image(tmp_path / "p.jpg").size == (16, 8)


def test_resize_is_bicubic_with_pillow_s_own_filter():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))
    ours = np.asarray(resize(image, 24, 12))
    assert (ours == np.asarray(image.resize((12, 24), Image.Resampling.BICUBIC))).all()


def broken_set(root, broken: int, whole: int):
    for number in range(whole + broken):
        write_person(root / f"{number:03d}.jpg", number, 1)
    names = sorted(root.glob("*.jpg"))
    for name in names[:broken]:
        name.write_bytes(name.read_bytes()[:200])  # cut short, as by a broken download
    return [str(name) for name in names]


def test_unreadable_crops_are_named_counted_and_replaced_up_to_the_limit(tmp_path):
    paths = broken_set(tmp_path, broken=1, whole=5)
    crops = Crops(paths, to_tensor)
    picture, position = crops[0]
    assert position == 1
    assert list(crops.unreadable) == [paths[0]]
    assert (picture == to_tensor(read_image(paths[1]))).all()
    assert crops[3][1] == 3
    assert list(find_unreadable(paths)) == [paths[0]]


def test_too_many_unreadable_crops_are_an_error(tmp_path):
    paths = broken_set(tmp_path, broken=2, whole=5)
    with pytest.raises(InputError, match=r"2 of 7 crops cannot be read .*000.jpg.*at most 1"):
        Crops(paths, to_tensor)[0]


def test_an_evaluation_replaces_nothing(tmp_path):
    paths = broken_set(tmp_path, broken=1, whole=3)
    with pytest.raises(InputError, match=r"000.jpg cannot be read"):
        Crops(paths, to_tensor, replace=False)[0]
