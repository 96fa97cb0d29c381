"""A look at unlabelled crops: places and their names, a seeded sample, and folders that are too large to look at."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lab.data import overview
from lab.data.importing import import_images, open_source
from lab.data.overview import count_by_place, look, refuse_many_files
from lab.data.store import Store
from lab.errors import InputError

PLACES = {"de/bonn/station": 3, "de/bonn/market": 2, "de/ulm/station": 1, "at/wien/ring": 4}


def make_folder(folder: Path, places: dict[str, int] = PLACES, size: tuple[int, int] = (12, 30)) -> Path:
    """Images of noise in folders country/city/video."""
    random = np.random.default_rng(0)
    for place, count in places.items():
        (folder / place).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / place / f"{number}.png")
    return folder


def test_images_are_counted_by_place_with_their_names(tmp_path):
    make_folder(tmp_path / "in")
    import_images(tmp_path / "in", tmp_path / "store")
    for source in (tmp_path / "in", tmp_path / "store"):
        places = count_by_place(open_source(source))
        found = {
            "/".join(row[:3]): row[3] for row in places[["country", "city", "video", "images"]].itertuples(index=False)
        }
        assert found == PLACES
        assert places["country"].tolist() == ["at", "de", "de", "de"]  # in the order of the keys


def test_a_place_without_a_name_is_called_by_its_number(tmp_path):
    make_folder(tmp_path, {"a": 2, "b": 1})
    assert count_by_place(open_source(tmp_path)).to_numpy().tolist() == [["0", "0", "a", 2], ["0", "0", "b", 1]]


def test_keys_of_another_kind_say_no_place(tmp_path):
    source = open_source(make_folder(tmp_path, {"a": 2}))
    source.keys = np.array([b"cat", b"dog"])
    assert len(count_by_place(source)) == 0


def test_the_sample_is_drawn_by_its_seed_and_has_what_is_known(tmp_path):
    make_folder(tmp_path / "in")
    import_images(tmp_path / "in", tmp_path / "store")
    index = Store(tmp_path / "store").index()
    for number, side in enumerate(("x", "y", "width", "height")):
        index[side] = np.arange(len(index), dtype=np.float32) + 100 * number
    index.to_parquet(tmp_path / "store/index.parquet", index=False)
    found = look(tmp_path / "store", pictures=4, seed=1)
    assert (found.info.images, found.info.places, len(found.pictures)) == (10, (2, 3, 4), 4)
    assert found.drawn["key"].tolist() == look(tmp_path / "store", pictures=4, seed=1).drawn["key"].tolist()
    assert len({tuple(look(tmp_path / "store", pictures=4, seed=seed).drawn["key"]) for seed in range(5)}) > 1
    store = Store(tmp_path / "store")
    rows = index.set_index("key")
    for row, picture in zip(found.drawn.to_dict("records"), found.pictures, strict=True):
        assert np.array_equal(picture, store.image(store.keys.tolist().index(row["key"].encode())))
        assert row["width"] == rows["width"][row["key"]]
        assert row["city"] == rows["city"][row["key"]]
    assert found.info.sample.shapes == ((30, 12),) * 10


def test_pictures_that_cannot_be_read_are_none_and_large_ones_get_smaller(tmp_path):
    make_folder(tmp_path, {"a": 1}, size=(300, 2000))
    (tmp_path / "a/broken.jpg").write_bytes(b"broken")
    found = look(tmp_path)
    assert [None if picture is None else picture.shape for picture in found.pictures] == [(512, 77, 3), None]
    assert found.drawn["name"].tolist() == ["a/0.png", "a/broken.jpg"]
    assert found.info.sample.shapes == ((2000, 300),)


def test_nothing_there_is_a_sentence(tmp_path):
    for place in (tmp_path / "nowhere", tmp_path, "\x00"):
        with pytest.raises((InputError, ValueError)):
            look(place)


def test_a_folder_of_too_many_files_is_not_read(tmp_path, monkeypatch):
    make_folder(tmp_path)
    refuse_many_files(tmp_path, 30)
    with pytest.raises(InputError, match="more than 5 files.*lab data import"):
        refuse_many_files(tmp_path, 5)
    monkeypatch.setattr(overview, "MOST_FILES", 5)
    (tmp_path / "at/again").symlink_to(tmp_path)  # a circle is walked once
    refuse_many_files(tmp_path, 30)
    refuse_many_files(io.StringIO.__name__, 5)  # no folder at all


def test_a_store_that_was_cut_short_since_the_last_look_is_a_sentence(tmp_path):
    """LMDB maps the file: one that is kept open would kill the process."""
    make_folder(tmp_path / "in")
    import_images(tmp_path / "in", tmp_path / "store")
    look(tmp_path / "store")
    file = tmp_path / "store/lmdb/data.mdb"
    file.write_bytes(file.read_bytes()[:9000])
    with pytest.raises(InputError, match="cut short"):
        look(tmp_path / "store")
