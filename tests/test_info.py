"""`lab data info`: its numbers against slow loops, sets whose answer is known by hand, and what it says in words."""

import io
import pickle
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from lab.data.importing import import_images
from lab.data.info import count_places, describe, describe_info
from lab.data.sample import Spread
from lab.data.store import Store
from lab.errors import InputError

LUPERSON = ((0.3525, 0.3106, 0.3140), (0.2660, 0.2522, 0.2505))


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def noise(number: int) -> np.ndarray:
    random = np.random.default_rng(number)
    height, width = random.integers(8, 40, 2)
    return random.integers(0, 40 + 20 * (number % 10), (height, width, 3))


def write_released(folder: Path, records: dict[str, bytes], keys) -> None:
    folder.mkdir(exist_ok=True)
    with lmdb.open(str(folder / "lmdb"), map_size=1 << 26) as environment, environment.begin(write=True) as transaction:
        for key, record in records.items():
            transaction.put(key.encode(), record)
    (folder / "keys.pkl").write_bytes(pickle.dumps(keys))


def test_mean_and_std_are_those_of_a_slow_loop_in_which_each_image_counts_alike(tmp_path):
    pictures = [noise(number) for number in range(25)]
    for number, pixels in enumerate(pictures):
        (tmp_path / f"{number}.png").write_bytes(png(pixels))
    sample = describe(tmp_path).sample
    for channel in range(3):
        mean = sum(np.mean(pixels[..., channel] / 255) for pixels in pictures) / len(pictures)
        square = sum(np.mean((pixels[..., channel] / 255 - mean) ** 2) for pixels in pictures) / len(pictures)
        assert sample.mean[channel] == pytest.approx(mean, abs=1e-12)
        assert sample.std[channel] == pytest.approx(np.sqrt(square), abs=1e-12)
    heights, widths = ([pixels.shape[axis] for pixels in pictures] for axis in (0, 1))
    assert sample.height == Spread(min(heights), np.median(heights), max(heights))
    assert sample.width == Spread(min(widths), np.median(widths), max(widths))
    aspects = [height / width for height, width in zip(heights, widths, strict=True)]
    assert sample.aspect == Spread(min(aspects), np.median(aspects), max(aspects))


def test_images_of_one_colour_each_have_statistics_known_by_hand(tmp_path):
    (tmp_path / "small.png").write_bytes(png(np.full((2, 1, 3), (0, 51, 255))))
    (tmp_path / "large.png").write_bytes(png(np.full((40, 20, 3), (102, 51, 0))))
    info = describe(tmp_path)
    assert info.sample.mean == pytest.approx((0.2, 0.2, 0.5))  # the large image weighs no more
    assert info.sample.std == pytest.approx((0.2, 0.0, 0.5))
    text = describe_info(info, LUPERSON)
    assert "mean of R, G, B 0.2000, 0.2000, 0.5000, LUPerson's 0.3525, 0.3106, 0.3140" in text
    assert "std of R, G, B 0.2000, 0.0000, 0.5000, LUPerson's 0.2660, 0.2522, 0.2505" in text
    assert "LUPerson's 0." not in describe_info(info)
    assert "height 2 to 40 (median 21), width 1 to 20 (median 10.5) pixels" in text
    assert "height / width 2.00 to 2.00 (median 2.00)" in text


def test_a_seed_always_draws_the_same_sample(tmp_path):
    for number in range(30):
        (tmp_path / f"{number}.png").write_bytes(png(noise(number)))
    (tmp_path / "a broken one.png").write_bytes(b"x")
    few = [describe(tmp_path, sample=10, seed=seed).sample for seed in (0, 0, 1)]
    assert few[0] == few[1]
    assert few[0].mean != few[2].mean
    assert few[0].images + len(few[0].unreadable) == 10
    every = describe(tmp_path, sample=31)
    assert (every.sample.images, every.sample.unreadable) == (30, ("a broken one.png",))
    assert "a sample of 31 images, 1 of them unreadable (a broken one.png)" in describe_info(every)
    with pytest.raises(InputError, match="--sample is 0"):
        describe(tmp_path, sample=0)


def test_a_released_lmdb_says_what_its_keys_and_labels_mean(tmp_path):
    keys = ["30_00_0292_00000238", "30_00_0292_00000007", "30_02_0001_00000000", "04_00_0292_00000001"]
    labels = {"pids": [5, 5, -1, 9], "vids": [1, 1, 1, 2]}
    write_released(tmp_path, {key: png(noise(1)) for key in keys[1:]}, {"keys": keys + keys[:1], **{
        name: values + values[:1] for name, values in labels.items()
    }})  # fmt: skip
    info = describe(tmp_path)
    assert (info.kind, info.images, info.places) == ("released LMDB", 4, (2, 3, 3))
    assert info.bytes == (tmp_path / "lmdb/data.mdb").stat().st_size
    assert info.first[0] == ("04_00_0292_00000001", "image 1 of video 292 of city 0 of country 4")
    assert info.first[2] == ("30_00_0292_00000238", "image 238 of video 292 of city 0 of country 30")
    assert info.sample.unreadable == ("30_00_0292_00000238",)
    assert info.labels == {"pids": (2, Spread(1, 1.5, 2)), "vids": (2, Spread(1, 2, 3))}
    text = describe_info(info)
    assert "2 countries, 3 cities, 3 videos" in text
    assert "left out: listed more than once: 1 (30_00_0292_00000238)" in text
    assert "tracklet" not in text.replace("tracklets or people (pids)", "")


def test_a_store_says_names_and_how_it_was_made(tmp_path):
    for city in ("de/bonn", "de/ulm", "at/wien"):
        for number in range(2):
            file = tmp_path / f"in/{city}/station/{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png(noise(number)))
    (tmp_path / "in/de/ulm/station/x.jpg").write_bytes(b"broken")
    import_images(tmp_path / "in", tmp_path / "store")
    info = describe(tmp_path / "store")
    assert (info.kind, info.images, info.places, info.tracklets, info.labels) == ("store", 6, (2, 3, 3), None, {})
    assert info.bytes == sum(file.stat().st_size for file in tmp_path.glob("in/*/*/*/*.png"))
    words = "image 1 of video 0 (station) of city 0 (wien) of country 0 (at), file at/wien/station/1.png"
    assert info.first[1] == ("00_00_0000_00000001", words)
    lines = describe_info(info).splitlines()
    assert "  found: 7" in lines
    assert "  skipped: 1 no whole image" in lines


def test_tracklets_are_counted_within_each_video(tmp_path):
    for video in ("a", "b"):
        for number in range(5):
            file = tmp_path / f"in/{video}/{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png(noise(number)))
    import_images(tmp_path / "in", tmp_path / "store")
    index = Store(tmp_path / "store").index()
    # video a: track 0 in frames 3, 4 and 9, track 1 in frame 4; video b: another track 0 in frames 1, 2 and 30
    index["track"] = np.array([0, 0, 1, 0, -1, 0, -1, 0, 0, -1], np.int32)
    index["frame"] = np.array([3, 4, 4, 9, 9, 1, 1, 2, 30, 31], np.int32)
    index.to_parquet(tmp_path / "store/index.parquet", index=False)
    info = describe(tmp_path / "store")
    assert (info.tracklets.count, info.tracklets.without) == (3, 3)
    assert info.tracklets.crops == Spread(1, 3, 3)
    assert info.tracklets.frames == Spread(1, 7, 30)
    assert "3 tracklets with 1 to 3 (median 3) crops; 3 crops in none" in describe_info(info)
    assert "from first to last crop 1 to 30 (median 7) frames" in describe_info(info)


def test_people_and_cameras_are_counted_without_junk(tmp_path):
    for name in ("0002_c1s1_1", "0002_c2s1_1", "0007_c1s1_1", "-1_c1s1_1"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / f"in/{name}.png").write_bytes(png(noise(1)))
    import_images(tmp_path / "in", tmp_path / "store")
    assert describe(tmp_path / "store").labels == {"pid": (2, Spread(1, 1.5, 2)), "camid": (2, Spread(1, 2, 3))}


@pytest.mark.parametrize(
    ("keys", "places"),
    [
        (["00_00_0000_00000000", "00_00_0000_00000001", "00_01_0000_00000000", "01_00_0000_00000000"], (2, 3, 3)),
        (["00_00_0000_00000000", "100_00_0000_00000000", "100_00_12345_00000000", "99_0_0_0"], None),
        (["00_00_0000_00000000", "100_00_0000_00000000", "100_00_12345_123456789"], (2, 2, 3)),
        (["a", "b"], None),
        (["cat_00000000", "dog_00000000"], None),
        (["00_00_0000_000000001", "00_00_0000_000000002"], (1, 1, 1)),
        (["_00000000"], None),
        (["00_00_0000_00000000", "x"], None),
    ],
)
def test_places_are_counted_from_keys_of_any_width(keys, places):
    assert count_places(np.sort(np.array(keys, dtype=np.bytes_))) == places


def test_there_has_to_be_an_image(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="holds no image"):
        describe(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"broken")
    info = describe(tmp_path)
    assert (info.sample.images, info.sample.mean) == (0, None)
    assert "a sample of 1 image, 1 of them unreadable (a.jpg)" in describe_info(info)


def test_a_damaged_index_is_one_sentence(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(png(noise(1)))
    import_images(tmp_path / "in", tmp_path / "store")
    (tmp_path / "store/index.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(InputError, match="index.parquet cannot be read"):
        describe(tmp_path / "store")
