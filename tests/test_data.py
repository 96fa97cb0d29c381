"""Splits and crops: how people are numbered, and how a picture becomes a tensor."""

import numpy as np
import pytest
from pictures import write_person
from PIL import Image

from lab.data import Split
from lab.data.crops import Crops, read_image, resize, to_tensor
from lab.data.jpeg import decode, find_unreadable
from lab.errors import InputError


def test_labels_count_people_from_zero_and_pids_stay_what_they_were():
    split = Split(["a", "b", "c", "d"], [7, 3, 7, 1500], [1, 1, 2, 10])
    assert split.labels.tolist() == [1, 0, 1, 2]
    assert split.pid.tolist() == [7, 3, 7, 1500]
    assert split.take(np.array([3, 1])).camid.tolist() == [10, 1]
    assert split.take(split.pid == 7).path.tolist() == ["a", "c"]


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
    assert crops[0][1] == 1  # it is not read again, nor counted twice
    assert len(crops.unreadable) == 1


def test_an_array_of_pixels_becomes_the_tensor_that_its_picture_becomes(tmp_path):
    write_person(tmp_path / "p.jpg", 1, 1, size=(7, 11))
    image = read_image(tmp_path / "p.jpg")
    tensor = to_tensor(image)
    assert (tensor.shape, tensor.is_contiguous()) == ((3, 11, 7), True)
    assert all(
        tuple(tensor[:, y, x].tolist()) == image.getpixel((x, y)) for x, y in [(0, 0), (6, 0), (0, 10), (6, 10), (3, 5)]
    )
    assert to_tensor(decode((tmp_path / "p.jpg").read_bytes())).equal(tensor)
    assert to_tensor(image.convert("RGBA")).shape == (4, 11, 7)


def test_crops_are_read_the_fast_way_or_as_pictures(tmp_path):
    paths = broken_set(tmp_path, broken=1, whole=5)
    pictures, pixels = Crops(paths, to_tensor), Crops(paths, to_tensor, read=decode)
    for index in range(6):
        assert pictures[index][0].equal(pixels[index][0])
        assert pictures[index][1] == pixels[index][1]
    assert list(pictures.unreadable) == list(pixels.unreadable) == paths[:1]


def test_too_many_unreadable_crops_are_an_error(tmp_path):
    paths = broken_set(tmp_path, broken=2, whole=5)
    with pytest.raises(InputError, match=r"2 of 7 crops cannot be read .*000.jpg.*at most 1"):
        Crops(paths, to_tensor)[0]


def test_an_evaluation_replaces_nothing(tmp_path):
    paths = broken_set(tmp_path, broken=1, whole=3)
    with pytest.raises(InputError, match=r"000.jpg cannot be read"):
        Crops(paths, to_tensor, replace=False)[0]
