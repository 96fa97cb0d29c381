"""Image sources: files, stores, shards and several in a row give the same bytes, in every process."""

import multiprocessing
import pickle

import lmdb
import numpy as np
import pytest
from pictures import write_person
from torch.utils.data import DataLoader

from lab.data.crops import Crops, to_tensor
from lab.data.images import Files, Several, open_images
from lab.data.jpeg import decode
from lab.data.readers import list_images
from lab.data.store import Store
from lab.data.tars import Tars, write_tars
from lab.errors import InputError


def key(number: int) -> str:
    return f"00_00_0000_{number:08d}"


def write_released(folder, images: list[bytes]):
    """LUPerson as it is released: an LMDB of keys and JPEG files, and a pickled list of the keys."""
    (folder / "lmdb").mkdir(parents=True)
    with lmdb.open(str(folder / "lmdb"), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for number, image in enumerate(images):
            transaction.put(key(number).encode(), image)
    (folder / "keys.pkl").write_bytes(pickle.dumps([key(number) for number in range(len(images))]))
    return folder


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Seven JPEG files in a folder, in a released LMDB and in tar shards; and their bytes in that order."""
    root = tmp_path_factory.mktemp("people")
    for number in range(7):
        write_person(root / "folder" / f"{key(number)}.jpg", number, 1, size=(16, 32))
    images = [file.read_bytes() for file in sorted((root / "folder").iterdir())]
    write_released(root / "store", images)
    write_tars(((key(number), image, {}) for number, image in enumerate(images)), root / "tars", max_bytes=6000)
    assert len(list((root / "tars").iterdir())) > 1
    return root, images


def read_all(source) -> list[bytes]:
    return [source.read(number) for number in range(len(source))]


@pytest.mark.parametrize(("place", "kind"), [("folder", Files), ("store", Store), ("tars", Tars)])
def test_each_place_gives_the_bytes_and_the_name_of_every_image(people, place, kind):
    root, images = people
    source = open_images(root / place)
    assert isinstance(source, kind)
    assert read_all(source) == images
    assert [key(number) in source.name(number) for number in range(7)] == [True] * 7
    assert read_all(pickle.loads(pickle.dumps(source))) == images


def test_several_places_follow_one_another_in_the_order_given(people, tmp_path):
    root, images = people
    write_person(tmp_path / "one" / "one.jpg", 99, 1)
    one = (tmp_path / "one" / "one.jpg").read_bytes()
    source = open_images(root / "store", tmp_path / "one", root / "tars", str(root / "folder"))
    assert isinstance(source, Several)
    assert len(source) == 22
    assert read_all(source) == [*images, one, *images, *images]
    assert source.name(0) == key(0)
    assert source.name(7) == str(tmp_path / "one" / "one.jpg")
    assert source.name(14).endswith(f".tar/{key(6)}.jpg")
    assert source.name(15) == str(root / "folder" / f"{key(0)}.jpg")
    assert read_all(pickle.loads(pickle.dumps(source))) == read_all(source)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_what_the_parent_has_read_before(people, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot start processes by {method}")
    root, images = people
    source = open_images(root / "store", root / "tars", root / "folder")
    assert read_all(source) == 3 * images  # everything is open in this process
    crops = Crops(source, to_tensor, read=decode)
    loader = DataLoader(crops, batch_size=None, num_workers=2, multiprocessing_context=method)
    for _ in range(2 if method == "fork" else 1):
        found = list(loader)
        assert [position for _, position in found] == list(range(21))
        assert all((image.numpy().transpose(1, 2, 0) == decode(images[at % 7])).all() for image, at in found)
    assert read_all(source) == 3 * images


def test_a_source_is_given_to_a_process_at_little_cost(tmp_path):
    paths = [f"/data/{number:020d}.jpg" for number in range(10_000)]
    assert len(pickle.dumps(Files(paths))) < 10_000 * (len(paths[0]) * 4) + 1000
    write_tars(((key(number), b"\xff\xd8\xff", {}) for number in range(3000)), tmp_path)
    assert len(pickle.dumps(open_images(tmp_path))) < 3000 * 24 + 1000  # three numbers per image


def test_files_may_be_paths_and_a_missing_one_is_an_oserror(people, tmp_path):
    root, images = people
    paths = sorted((root / "folder").iterdir())
    assert read_all(Files(paths)) == read_all(Files([str(path) for path in paths])) == images
    with pytest.raises(OSError, match="nobody.jpg"):
        Files([tmp_path / "nobody.jpg"]).read(0)


def test_a_folder_of_images_is_read_in_the_order_of_list_images(market):
    source = open_images(market)
    assert [source.name(number) for number in range(len(source))] == list_images(market)


def test_what_cannot_be_meant_is_explained(people, tmp_path):
    with pytest.raises(InputError, match="no folder of images was given"):
        open_images()
    with pytest.raises(InputError, match=r"there is no folder .*nowhere"):
        open_images(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        open_images(tmp_path / "empty")
    write_person(tmp_path / "both" / "below" / "a.jpg", 1, 1)
    (tmp_path / "both" / "archive.tar").touch()
    with pytest.raises(InputError, match=r"1 image file\(s\) and 1 tar archive\(s\), such as archive.tar"):
        open_images(tmp_path / "both")
    (tmp_path / "stopped" / "lmdb").mkdir(parents=True)
    (tmp_path / "stopped" / "unfinished.json").touch()
    with pytest.raises(InputError, match="not finished"):
        open_images(tmp_path / "stopped")
    (tmp_path / "parts" / "shard-0-of-2").mkdir(parents=True)
    with pytest.raises(InputError, match="lab data merge"):
        open_images(people[0] / "folder", tmp_path / "parts")


def test_a_broken_image_of_a_store_or_a_shard_is_named_by_its_key(people, tmp_path):
    broken = [image[:200] if number == 2 else image for number, image in enumerate(people[1])]
    write_released(tmp_path / "store", broken)
    write_tars(((key(number), image, {}) for number, image in enumerate(broken)), tmp_path / "tars")
    for place in ("store", "tars"):
        crops = Crops(open_images(tmp_path / place), to_tensor, read=decode)
        assert crops[2][1] == 3
        assert crops[np.int64(1)][1] == 1
        (name,) = crops.unreadable
        assert key(2) in name
