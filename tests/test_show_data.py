"""Counts of data sets by hand, and figures that have the numbers of their tables."""

import numpy as np
import pandas as pd
import pytest
from make_demo import tiny_result

from lab.data.splits import Split
from lab.show.data import (
    drawn_words,
    parts_of,
    parts_table,
    people_by_cameras,
    people_by_cameras_figure,
    people_sheet,
    per_camera,
    per_camera_figure,
    per_identity,
    per_identity_figure,
    person_sheet,
    places_figure,
    sizes_figure,
)
from lab.show.figures import card_sheet, contact_sheet


def split(*crops: tuple[int, int]) -> Split:
    """A split of crops (pid, camid)."""
    pid, camid = zip(*crops, strict=True)
    return Split([f"{number}.jpg" for number in range(len(crops))], pid, camid)


PARTS = {"query": split((7, 1), (9, 2)), "gallery": split((0, 1), (0, 3), (7, 3), (7, 2), (9, 2))}


def words_in(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_the_parts_of_a_result_are_counted():
    table = parts_table(parts_of(tiny_result()), tiny_result()).set_index("part")
    assert table.loc["query"].tolist() == [2, 2, 2, "1 to 1, median 1", 0, 1]
    assert table.loc["gallery"].tolist() == [3, 2, 3, "1 to 2, median 1.5", 0, 0]
    alone = parts_of(tiny_result(gallery_pid=None, gallery_camid=None, gallery_path=None))
    assert list(alone) == ["query"]


def test_distractors_are_crops_and_no_identity():
    table = parts_table(PARTS).set_index("part")
    assert table.loc["gallery", ["crops", "identities", "distractors (pid 0)"]].tolist() == [5, 2, 2]
    asked_for = PARTS | {"query": split((0, 1))}  # then pid 0 is a person
    assert parts_table(asked_for).set_index("part").loc["gallery", "identities"] == 3
    assert "queries without a match" not in table


def test_crops_per_camera():
    assert per_camera(PARTS).to_dict() == {"query": {1: 1, 2: 1, 3: 0}, "gallery": {1: 1, 2: 2, 3: 2}}
    figure = per_camera_figure(PARTS)
    assert [(bar.name, list(bar.x), list(bar.y)) for bar in figure.data] == [
        ("query", ["1", "2", "3"], [1, 1, 0]),
        ("gallery", ["1", "2", "3"], [1, 2, 2]),
    ]
    assert list(figure.data[1].text) == ["1", "2", "2"]
    assert figure.layout.xaxis.title.text
    assert figure.layout.yaxis.title.text
    assert len({bar.marker.pattern.shape for bar in figure.data}) == 2  # not told apart by colour alone


def test_many_cameras_have_no_room_for_numbers():
    parts = {"train": split(*((1, camera) for camera in range(30)))}
    assert set(per_camera_figure(parts).data[0].text) == {""}


def test_crops_per_identity():
    table = per_identity(PARTS, distractors=True)
    assert table.to_dict() == {"query": {1: 2, 2: 0}, "gallery": {1: 1, 2: 1}}
    assert per_identity(PARTS).loc[2, "gallery"] == 2
    figure = per_identity_figure(table)
    assert [(list(bar.x), list(bar.y)) for bar in figure.data] == [([1, 2], [2, 0]), ([1, 2], [1, 1])]


def test_a_long_histogram_joins_its_bars_and_keeps_the_sum():
    crops = [(pid, 1) for pid in range(100) for _ in range(1 + 3 * pid)]
    table = per_identity({"train": split(*crops)})
    bar = per_identity_figure(table).data[0]
    assert len(bar.x) <= 40
    assert sum(bar.y) == 100
    assert bar.customdata[0] == "1 to 8"
    assert bar.y[0] == 3  # people with 1, 4 and 7 crops


def test_people_by_cameras():
    table = people_by_cameras(PARTS, distractors=True)
    assert table.to_dict() == {1: {7: 1, 9: 0}, 2: {7: 1, 9: 2}, 3: {7: 1, 9: 0}}
    assert 0 in people_by_cameras(PARTS).index
    heat = people_by_cameras_figure(table).data[0]
    assert np.array_equal(np.nan_to_num(heat.z), table.to_numpy())
    assert np.isnan(heat.z[1][0])  # never seen there: blank
    assert list(heat.y) == ["7", "9"]


def test_places_are_sorted_and_no_more_than_can_be_read():
    images = pd.Series(range(50), index=[f"<b>{number}" for number in range(50)])
    bar = places_figure(images, "city").data[0]
    assert list(bar.x) == list(range(49, 19, -1))
    assert bar.y[0] == "&lt;b&gt;49"


def test_sizes_are_counted_in_pixels():
    figure = sizes_figure([(128, 64), (128, 64), (100, 50)])
    assert [bar.name for bar in figure.data] == ["height", "width"]
    assert [list(bar.y) for bar in figure.data] == [[1, 2], [1, 2]]
    for bar, sizes in zip(figure.data, ((100, 128), (50, 64)), strict=True):
        assert all(abs(x - size) <= bar.width / 2 for x, size in zip(bar.x, sizes, strict=True))
    assert [sum(bar.y) for bar in sizes_figure([(5, 5)]).data] == [1, 1]
    wide = sizes_figure([(height, 10) for height in range(1, 2000)]).data[0]
    assert sum(wide.y) == 1999
    assert len(wide.y) <= 41


def test_a_person_has_a_row_for_each_camera():
    asked = []
    figure = person_sheet(PARTS, 7, lambda path: asked.append(path))
    assert words_in(figure).count("query") == 1
    assert words_in(figure).count("gallery") == 2
    assert [word for word in words_in(figure) if word.startswith("camera")] == ["camera 1", "camera 2", "camera 3"]
    assert asked == ["0.jpg", "3.jpg", "2.jpg"]
    many = {"gallery": split(*[(7, 1)] * 30)}
    assert words_in(person_sheet(many, 7, lambda path: None)).count("gallery") == 8


def test_some_people_have_a_row_each():
    words = words_in(people_sheet(PARTS, [9, 7], lambda path: None))
    assert [word for word in words if word.startswith("pid")] == ["pid 9", "pid 7"]
    assert [word for word in words if word.startswith("camera")] == [
        "camera 2",
        "camera 2",
        "camera 1",
        "camera 2",
        "camera 3",
    ]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"key": "30_00_0292_00000238"}, "1\n30_00_0292_\n00000238"),
        ({"key": "", "country": None, "city": float("nan")}, "1"),
        ({"country": "30", "city": "bonn", "video": "$x$" * 9}, "1\ncountry 30\nbonn\n$x$$x$$x$$x$$x$…"),
        ({"x": 1.2, "y": 2.0, "width": 30.4, "height": 60.0}, "1\nbox 30 x 60\nat 1, 2"),
    ],
)
def test_what_is_known_of_an_image_in_a_few_words(row, words):
    assert drawn_words(pd.DataFrame([row])) == [words]


def test_cards_have_their_words_beside_them_and_a_grey_tile_for_a_lost_image():
    figure = card_sheet([np.full((20, 10, 3), 99, np.uint8), None, None], ["one\ntwo", "$x$", ""], columns=2)
    assert words_in(figure)[0] == "one\ntwo"
    assert "$x$" in words_in(figure)
    assert len(figure.axes[0].images) == 1
    places = [text.get_position() for text in figure.axes[0].texts if text.get_text() in ("one\ntwo", "$x$")]
    assert places[0][1] == places[1][1]  # in one row


def test_titles_of_several_lines_get_more_room():
    heights = [contact_sheet([None], [title]).get_figheight() for title in ("a", "a\nb", "a\nb\nc")]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1])
    assert heights[1] > heights[0]
