"""Features that stay on disk are the array that numpy wrote, whichever way they are asked for."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lab.features_on_disk as module
from lab.errors import InputError
from lab.evaluate.metrics import evaluate_ranking
from lab.features_on_disk import RowsOnDisk
from lab.runs import Features

LABELS = {"pid": np.arange(40) % 7, "camid": np.arange(40) % 3}


def matrix(dtype="float32", rows=40, columns=5) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rows, columns)).astype(dtype)


def stored(folder: Path, values: np.ndarray, kind: str = "npz") -> Path:
    """The values in a file as other people's programs write it."""
    if kind == "npy":
        np.save(folder / "f.npy", values)
        return folder / "f.npy"
    np.savez(folder / "f.npz", camid=LABELS["camid"], values=values, pid=LABELS["pid"])
    return folder / "f.npz"


@pytest.mark.parametrize("kind", ["npz", "npy"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_way_to_ask_for_rows_gives_what_the_array_gives(tmp_path, kind, dtype, monkeypatch):
    monkeypatch.setattr(module, "GAP", 30)  # some rows are read through, others gone to
    monkeypatch.setattr(module, "PIECE", 100)
    values = matrix(dtype)
    rows = RowsOnDisk.open(stored(tmp_path, values, kind))
    assert (rows.shape, rows.dtype, len(rows), rows.ndim, rows.nbytes) == ((40, 5), dtype, 40, 2, values.nbytes)
    mask = np.arange(40) % 3 == 1
    for which in (
        slice(None), slice(3, 17), slice(17, 3), slice(-5, None), slice(30, 99), slice(None, None, -7), slice(5, 5), 0,
        -1, np.int64(7), [3, 3, -40, 39, 4, 5, 6], np.array([39, 0], np.uint8), [], mask, np.zeros(40, bool),
    ):  # fmt: skip
        found, expected = rows[which], values[np.array(which, int) if isinstance(which, list) else which]
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.asarray(rows), values)
    np.testing.assert_array_equal(np.require(rows, np.float32, "CW"), values.astype(np.float32))
    np.testing.assert_array_equal(np.concatenate([rows, values]), np.concatenate([values, values]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-40, 39), max_size=60), st.integers(1, 200), st.integers(0, 100))
def test_any_numbers_in_any_order(tmp_path_factory, numbers, piece, gap):
    values = matrix()
    rows = RowsOnDisk.open(stored(tmp_path_factory.mktemp("any"), values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", piece)
        patch.setattr(module, "GAP", gap)
        np.testing.assert_array_equal(rows[numbers], values[np.array(numbers, int)])
        taken = rows.take(numbers)
        np.testing.assert_array_equal(taken[:], values[np.array(numbers, int)])
        np.testing.assert_array_equal(taken[::-2], values[np.array(numbers, int)][::-2])


def test_rows_are_taken_as_from_an_array_and_stay_on_disk(tmp_path):
    values = matrix()
    rows = RowsOnDisk.open(stored(tmp_path, values))
    kept = np.flatnonzero(LABELS["pid"] != 3)
    for one, two in ((rows, values), (rows.take(kept, axis=0), values.take(kept, axis=0))):
        taken, expected = one.take([5, 2, -1], axis=0), two.take([5, 2, -1], axis=0)
        assert isinstance(taken, RowsOnDisk)
        assert (taken.shape, taken.nbytes) == (expected.shape, expected.nbytes)
        np.testing.assert_array_equal(taken, expected)
        np.testing.assert_array_equal(taken[1:], expected[1:])
    assert rows.shape == (40, 5)


@pytest.mark.parametrize("which", [40, -41, [0, 40], np.ones(39, bool), [0.5], np.zeros((2, 2), int), (0, 0), "a"])
def test_rows_that_are_not_there_are_an_index_error(tmp_path, which):
    rows = RowsOnDisk.open(stored(tmp_path, matrix()))
    with pytest.raises(IndexError, match=r"is not among 40|rows are chosen by"):
        rows[which]


def test_what_was_read_is_a_copy(tmp_path):
    rows = RowsOnDisk.open(stored(tmp_path, matrix()))
    for which in (slice(0, 4), [0, 1, 2, 3]):
        rows[which][:] = 7
        np.testing.assert_array_equal(rows[:4], matrix()[:4])
    with pytest.raises(ValueError, match="always a copy"):
        np.array(rows, copy=False)


def test_reading_does_not_fill_the_memory(tmp_path):
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("the peak of a process' memory is read from /proc, which only Linux has")
    np.save(tmp_path / "f.npy", np.ones((100_000, 128), np.float32))  # 51 MB
    code = f"""
import sys, numpy as np
from lab.features_on_disk import RowsOnDisk
def peak(): return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1000
rows = RowsOnDisk.open({str(tmp_path / "f.npy")!r})
rows[:2], rows[[0, 2]]
before, some = peak(), np.random.default_rng(0)
for start in range(0, len(rows), 4096):
    rows[start : start + 4096]
    rows[some.integers(0, len(rows), 4096)]
    rows.take(np.arange(0, len(rows), 2))[start : start + 4096]
sliced = peak() - before
np.asarray(rows)
print(sliced, peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    sliced, loaded = map(float, done.stdout.split())
    assert loaded > 45
    assert sliced < 25


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda file: np.savez_compressed(file, values=matrix()), "is compressed.*save it with numpy.savez instead"),
        (lambda file: np.savez(file, values=np.asfortranarray(matrix())), "in Fortran order, which cannot be read row"),
        (lambda file: np.savez(file, values=matrix().astype(object)), "of object, which cannot be read row by row"),
        (lambda file: np.savez(file, values=matrix().astype(">f4")), "of >f4, which cannot be read row by row"),
        (lambda file: np.savez(file, values=matrix().astype(int)), "of int64, which cannot be read row by row"),
        (lambda file: np.savez(file, values=np.ones(40)), r"holds values \(40,\) of float64"),
        (lambda file: np.savez(file, others=matrix()), "cannot be read as an npz.*values"),
        (lambda file: file.write_bytes(b"\x93NUMPY"), "cannot be read as an npz"),
        (lambda file: file.write_bytes(b""), "cannot be read as an npz"),
    ],
)
def test_what_cannot_be_read_row_by_row_is_explained(tmp_path, write, sentence):
    write(tmp_path / "f.npz")
    with pytest.raises(InputError, match=sentence):
        RowsOnDisk.open(tmp_path / "f.npz")


@pytest.mark.parametrize(("kind", "sentence"), [("npz", "cannot be read as an npz"), ("npy", "is cut off: 7.. bytes")])
def test_a_truncated_file_is_named(tmp_path, kind, sentence):
    file = stored(tmp_path, matrix(), kind)
    file.write_bytes(file.read_bytes()[:-64])
    with pytest.raises(InputError, match=sentence):
        RowsOnDisk.open(file)


def test_a_file_that_changes_under_way_is_not_read_on(tmp_path):
    file = stored(tmp_path, matrix())
    rows = RowsOnDisk.open(file)
    taken = rows.take([1])
    os.utime(file, ns=(0, 0))
    for some in (rows, taken):
        with pytest.raises(InputError, match="was changed while it was in use"):
            some[:1]
    file.unlink()
    with pytest.raises(InputError, match="cannot be read any more"):
        rows[[0]]


def test_features_stay_on_disk_when_they_are_large_or_when_told(tmp_path, monkeypatch):
    file = stored(tmp_path, matrix("float16"))
    assert isinstance(Features.load(file).values, np.ndarray)
    there = Features.load(file, on_disk=True)
    assert isinstance(there.values, RowsOnDisk)
    assert there.values.dtype == np.float16
    monkeypatch.setattr(module, "MOST_IN_MEMORY", 100)
    assert isinstance(Features.load(file).values, RowsOnDisk)
    here = Features.load(file, on_disk=False)
    assert here.values.dtype == np.float32
    np.testing.assert_array_equal(here.values, there.values)
    np.testing.assert_array_equal(there.pid, LABELS["pid"])
    assert there.path.tolist() == [""] * 40


def test_large_features_that_cannot_stay_on_disk_are_loaded_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_IN_MEMORY", 100)
    np.savez_compressed(tmp_path / "f.npz", values=matrix(), **LABELS)
    np.testing.assert_array_equal(Features.load(tmp_path / "f.npz").values, matrix())
    with pytest.raises(InputError, match="is compressed"):
        Features.load(tmp_path / "f.npz", on_disk=True)


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_plain_matrix_has_its_labels_beside_it(tmp_path, on_disk):
    np.save(tmp_path / "gallery.npy", matrix())
    with pytest.raises(InputError, match=r"no gallery-labels.npz beside .*gallery.npy; save pid \(N,\), camid"):
        Features.load(tmp_path / "gallery.npy", on_disk)
    np.savez(tmp_path / "gallery-labels.npz", path=np.array([f"{i}.jpg" for i in range(40)]), **LABELS)
    features = Features.load(tmp_path / "gallery.npy", on_disk)
    np.testing.assert_array_equal(features.values, matrix())
    assert features.path[39] == "39.jpg"
    np.savez(tmp_path / "gallery-labels.npz", pid=LABELS["pid"][:-1], camid=LABELS["camid"])
    with pytest.raises(InputError, match=r"values \(40, 5\) and pid \(39,\)"):
        Features.load(tmp_path / "gallery.npy", on_disk)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_features_on_disk_are_saved_slice_by_slice_and_open_with_numpy(tmp_path, dtype, monkeypatch):
    monkeypatch.setattr(module, "PIECE", 100)
    features = Features.load(stored(tmp_path, matrix(dtype)), on_disk=True)
    monkeypatch.setattr(RowsOnDisk, "__array__", None)  # nobody loads them whole
    features.save(tmp_path / "copy.npz")
    Features(features.values.take([4, 2]), *(LABELS[name][[4, 2]] for name in LABELS), np.array(["", ""])).save(
        tmp_path / "some.npz"
    )
    monkeypatch.undo()
    with np.load(tmp_path / "copy.npz", allow_pickle=False) as arrays:
        assert sorted(arrays.files) == ["camid", "path", "pid", "values"]
        np.testing.assert_array_equal(arrays["values"], matrix(dtype))
        assert arrays["values"].dtype == dtype
        np.testing.assert_array_equal(arrays["pid"], LABELS["pid"])
    np.testing.assert_array_equal(Features.load(tmp_path / "some.npz", on_disk=True).values, matrix(dtype)[[4, 2]])


def test_features_on_disk_may_be_saved_over_their_own_file(tmp_path):
    file = stored(tmp_path, matrix())
    Features.load(file, on_disk=True).save(file)
    np.testing.assert_array_equal(Features.load(file, on_disk=True).values, matrix())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_a_ranking_from_disk_is_the_ranking_from_memory(tmp_path, dtype, distance):
    file = stored(tmp_path, matrix(dtype))
    here, there = (Features.load(file, on_disk=on_disk) for on_disk in (False, True))
    expected = evaluate_ranking(here, here, distance)
    found = evaluate_ranking(there, there, distance, memory_gb=1e-6)
    np.testing.assert_array_equal(found.index, expected.index)
    np.testing.assert_allclose(found.distance, expected.distance, rtol=1e-5, atol=1e-5)
    assert found.mAP == expected.mAP
