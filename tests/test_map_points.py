"""Points of embedding maps: which crops are chosen, and what a stored map has to be to count."""

import dataclasses
import io
import os
import zipfile

import numpy as np
import pytest
from make_demo import tiny_result

from lab.errors import InputError
from lab.evaluate.map_points import MapPoints, choose_crops, choose_people, has_distractors, map_file, match_queries
from lab.runs import Features, Run


def points(count: int = 5) -> MapPoints:
    random = np.random.default_rng(0)
    return MapPoints(np.arange(count), random.random((count, 2)).astype(np.float32), np.array([0.5, 0.25]))


def test_a_map_that_was_stored_is_read_again(tmp_path):
    file = map_file(Run(tmp_path), "market1501", "both", "pca", 1000, 3)
    assert file == tmp_path / "maps" / "market1501-both-pca-1000-3.npz"
    points().save(file, "a")
    found = MapPoints.load(file, "a", np.arange(5))
    assert np.array_equal(found.points, points().points)
    assert found.share.tolist() == [0.5, 0.25]
    assert [path.name for path in file.parent.iterdir()] == [file.name]  # no temporary file is left


def test_a_map_of_other_features_or_crops_counts_as_none(tmp_path):
    points().save(tmp_path / "maps/a.npz", "a")
    assert MapPoints.load(tmp_path / "maps/a.npz", "b", np.arange(5)) is None
    assert MapPoints.load(tmp_path / "maps/a.npz", "a", np.arange(1, 6)) is None
    assert MapPoints.load(tmp_path / "maps/a.npz", "a", np.arange(4)) is None
    assert MapPoints.load(tmp_path / "maps/none.npz", "a", np.arange(5)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"points": np.zeros((5, 3))},
        {"points": np.zeros(10)},
        {"points": np.full((5, 2), np.nan)},
        {"points": np.array([["<b>", "x"]] * 5)},
        {"points": np.zeros((5, 2), dtype=int)},
        {"share": np.zeros(3)},
        {"row": None},
    ],
)
def test_a_map_of_another_shape_counts_as_none(tmp_path, change):
    content = {"row": np.arange(5), "points": np.zeros((5, 2)), "share": np.zeros(2), "stamp": np.array("a")} | change
    np.savez(tmp_path / "a.npz", **{name: value for name, value in content.items() if value is not None})
    assert MapPoints.load(tmp_path / "a.npz", "a", np.arange(5)) is None


def test_a_broken_map_counts_as_none(tmp_path):
    file = tmp_path / "maps/a.npz"
    points().save(file, "a")
    whole = file.read_bytes()
    for content in (b"", b"no zip", whole[:-30], whole[:200] + b"\x00" * 20 + whole[220:]):
        file.write_bytes(content)
        assert MapPoints.load(file, "a", np.arange(5)) is None
    np.savez(file, row=np.array([{}], dtype=object), points=1, share=1, stamp=1)
    assert MapPoints.load(file, "a", np.arange(5)) is None


def test_a_map_that_claims_to_be_huge_is_not_read(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 2)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name in ("row", "points", "share", "stamp"):
            archive.writestr(f"{name}.npy", header.getvalue())
    assert MapPoints.load(tmp_path / "a.npz", "a", np.arange(5)) is None
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("points.npy", b"\x00" * (1 << 27))
    assert MapPoints.load(tmp_path / "b.npz", "a", np.arange(5)) is None


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "run/maps")
    with pytest.raises(InputError, match="is a link"):
        points().save(tmp_path / "run/maps/a.npz", "a")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_sample_is_whole_people_and_no_junk():
    pid = np.random.default_rng(0).permutation(np.repeat([-1, 0, 3, 4, 5, 6], [7, 40, 10, 10, 10, 10]))
    rows = choose_crops(pid, 25, seed=1, distractors=True)
    chosen, counts = np.unique(pid[rows], return_counts=True)
    assert counts.tolist() == [10, 10]
    assert not {-1, 0} & set(chosen.tolist())
    assert (np.diff(rows) > 0).all()
    assert np.array_equal(rows, choose_crops(pid, 25, seed=1, distractors=True))
    assert len({tuple(choose_crops(pid, 25, seed, True)) for seed in range(20)}) > 2
    everything = choose_crops(pid, 80, distractors=True)
    assert np.array_equal(everything, np.flatnonzero(pid >= 0))  # all fit: distractors too


def test_one_person_with_too_many_crops_keeps_some():
    rows = choose_crops(np.full(50, 9), 20)
    assert len(set(rows.tolist())) == 20
    assert len(choose_crops(np.zeros(50, dtype=int), 20, distractors=True)) == 20  # nobody else is there
    assert len(choose_crops(np.array([], dtype=int), 20)) == 0


def test_people_in_colour_have_several_crops_if_there_are_such():
    pid = np.repeat([-1, 0, 1, 2, 3, 4, 5], [9, 9, 1, 4, 1, 5, 6])
    assert choose_people(pid, 3, distractors=True) == [2, 4, 5]
    assert choose_people(pid, 9, distractors=True) == [1, 2, 3, 4, 5]
    assert 0 in choose_people(pid, 9)


def test_distractors_are_people_whom_no_query_asks_for():
    assert has_distractors(np.array([1, 2]), np.array([0, 1]))
    assert not has_distractors(np.array([0, 2]), np.array([0, 1]))  # a person, as in MSMT17
    assert not has_distractors(np.array([1]), np.array([1, 2]))
    assert not has_distractors(np.array([1]), None)


def test_stored_queries_are_found_in_the_result_by_path():
    result = tiny_result()
    query = Features(np.zeros((2, 3)), result.pid, result.camid, result.path)
    assert match_queries(query, result).tolist() == [0, 1]
    other = Features(np.zeros((3, 3)), np.zeros(3), np.zeros(3), np.array([result.path[1], "x", result.path[0]]))
    assert match_queries(other, result).tolist() == [1, -1, 0]


def test_queries_without_paths_have_to_be_in_the_same_order():
    result = dataclasses.replace(tiny_result(), path=np.array(["", ""]))
    query = Features(np.zeros((2, 3)), result.pid, result.camid, result.path)
    assert match_queries(query, result).tolist() == [0, 1]
    swapped = dataclasses.replace(query, pid=result.pid[::-1])
    assert match_queries(swapped, result).tolist() == [-1, -1]
