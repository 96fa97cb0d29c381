"""Rank lists as pixels: what is drawn where, and what a search found as a list."""

import io

import numpy as np
import pytest
from make_demo import tiny_result
from matplotlib.colors import to_rgb
from PIL import Image

from lab.evaluate.search import Found
from lab.runs import Features
from lab.show import rank_lists
from lab.show.figures import JUNK, QUERY, RIGHT, WRONG, describe_list, legend_of, next_right, stored_entries

GREY = np.full((64, 32, 3), 120, np.uint8)


def draw(entries, **more) -> np.ndarray:
    return np.asarray(rank_lists.rank_list_picture(GREY, "pid 7", entries, lambda path: GREY, "a run", **more))


def frame_colours(pixels: np.ndarray, count: int) -> list[tuple]:
    """Colours on the left edges of the query's tile and of the tiles of the first row."""
    rows = rank_lists.TOP + 100
    lefts = [rank_lists.MARGIN] + [
        rank_lists.MARGIN + rank_lists.STEP + rank_lists.GAP + rank_lists.STEP * place for place in range(count)
    ]
    return [tuple(int(value) for value in pixels[rows, left + 2]) for left in lefts]


def rgb(colour: str) -> tuple:
    return tuple(round(255 * value) for value in to_rgb(colour))


def found() -> tuple[Found, Features]:
    kinds = np.array(["same camera", "right", "wrong"])
    result = Found(np.array([2, 0, 1]), np.array([0.1, 0.2, 0.3], np.float32), kinds, np.array([0, 1, 2]))
    gallery = Features(np.eye(3), np.array([7, 8, 7]), np.array([2, 1, 1]), np.array(["a.jpg", "b.jpg", "c.jpg"]))
    return result, gallery


def test_frames_tell_right_from_wrong():
    pixels = draw(stored_entries(tiny_result(), 0))
    assert frame_colours(pixels, 3) == [rgb(colour) for colour in (QUERY, RIGHT, WRONG, RIGHT)]


def test_crop_of_the_same_camera_has_a_frame_of_its_own():
    assert frame_colours(draw(rank_lists.found_entries(*found())), 3) == [
        rgb(colour) for colour in (QUERY, JUNK, RIGHT, WRONG)
    ]


def test_crops_keep_their_proportions_on_grey():
    pixels = draw(stored_entries(tiny_result(), 0), scale=1.0)
    wide = np.full((32, 64, 3), 10, np.uint8)
    other = np.asarray(rank_lists.rank_list_picture(wide, "", [], lambda path: None, "t"))
    x, y = rank_lists.MARGIN + rank_lists.TILE[0] // 2, rank_lists.TOP
    assert pixels[y + 112, x].tolist() == [120] * 3
    assert other[y + 112, x].tolist() == [10] * 3
    assert other[y + 30, x].tolist() == [230] * 3


def test_scale_makes_more_pixels_of_the_same_page():
    once, twice = (rank_lists.rank_list_picture(GREY, "", [], scale=scale) for scale in (1, 2))
    assert twice.size == (2 * once.width, 2 * once.height)


def test_long_lists_have_rows():
    entries = stored_entries(tiny_result(), 0)
    one, two = (draw(entries, columns=columns) for columns in (3, 2))
    assert two.shape[0] > one.shape[0] + rank_lists.TILE[1]


def test_stack_puts_pictures_under_one_another():
    first, second = Image.new("RGB", (30, 10), "red"), Image.new("RGB", (20, 5), "blue")
    page = rank_lists.stack([first, second])
    assert page.size == (30, 15)
    assert page.getpixel((5, 12)) == (0, 0, 255)
    assert page.getpixel((25, 12)) == (255, 255, 255)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_files_are_what_they_are_called(form):
    with Image.open(io.BytesIO(rank_lists.to_bytes(Image.new("RGB", (8, 8)), form))) as image:
        assert image.format == form


def test_missing_picture_and_strange_names_are_drawn():
    entries = stored_entries(tiny_result(gallery_path=np.array(["$x_{.jpg", "ä<b>.jpg", "\n"])), 0)
    rank_lists.rank_list_picture(None, "", entries, lambda path: None, "$a$ <b>")


def test_next_right_one_is_found_after_what_is_shown():
    result = tiny_result()  # right, wrong, right
    assert [next_right(result, 0, shown) for shown in (0, 1, 2, 3)] == [1, 3, 3, 0]
    assert "next right one at rank 3" in describe_list(result, 0, 2)
    assert "next" not in describe_list(result, 0, 3)


def test_found_as_table_and_entries():
    table = rank_lists.found_table(*found())
    assert table["file"].tolist() == ["c.jpg", "a.jpg", "b.jpg"]
    assert table["rank"].tolist() == [0, 1, 2]
    assert table["pid"].tolist() == [7, 7, 8]
    assert legend_of(rank_lists.found_entries(*found())).endswith("same person and camera: not counted")
    assert rank_lists.found_entries(*found())[0].words == "0.100\npid 7\ncam 1"
