"""Import and export: what comes out of a store is what went in, whatever form it had, and whoever was killed between."""

import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import lmdb
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from shared_data import SHARED

from lab.data import from_folder, from_store, from_tars
from lab.data.exporting import describe_export, export_jpegs, export_tars
from lab.data.importing import describe_import, import_images
from lab.data.keys import make_key
from lab.data.store import Store, close
from lab.errors import InputError


def picture(number: int, kind: str = "JPEG", size: tuple[int, int] = (12, 24)) -> bytes:
    """An image file of noise, another one for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def write_released(folder: Path, records: dict[str, bytes], keys=None, name: str = "lmdb") -> None:
    """LUPerson's layout, as its description has it: an LMDB of image files by ASCII key, and a pickled list or dict."""
    folder.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(folder / name), map_size=1 << 26) as environment, environment.begin(write=True) as transaction:
        for key, record in records.items():
            transaction.put(key.encode(), record)
    if keys is not None:
        (folder / "keys.pkl").write_bytes(pickle.dumps(keys))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def contents(folder: Path) -> dict[str, bytes]:
    """What a store's LMDB holds, read without the lab."""
    close(folder / "lmdb")  # LMDB opens a file once in a process
    with lmdb.open(str(folder / "lmdb"), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return {key.decode(): bytes(value) for key, value in transaction.cursor()}


def numbered_by_hand(root: Path) -> dict[str, bytes]:
    """Keys as LUPerson's own script makes them: sorted names on every level, counted from 0."""
    found = {}
    for i, country in enumerate(sorted(os.listdir(root))):
        for j, city in enumerate(sorted(os.listdir(root / country))):
            for k, video in enumerate(sorted(os.listdir(root / country / city))):
                for m, name in enumerate(sorted(os.listdir(root / country / city / video))):
                    found[f"{i:02d}_{j:02d}_{k:04d}_{m:08d}"] = (root / country / city / video / name).read_bytes()
    return found


@pytest.fixture
def cities(tmp_path) -> Path:
    """country/city/video/*.jpg, with folders that hold nothing on each level."""
    root = tmp_path / "cities"
    names = [
        "de/bonn/v1/b",
        "de/bonn/v1/a",
        "de/bonn/v10/x",
        "de/bonn/v2/x",
        "at/wien/z/1",
        "at/wien/z/10",
        "at/wien/z/2",
    ]
    write_files(
        root, {f"{name}.jpg": picture(number) for number, name in enumerate([*names, "fr/lyon/a/q", "fr/nice/b/r"])}
    )
    for empty in ("be", "de/aachen", "de/bonn/v15"):
        (root / empty).mkdir(parents=True)
    return root


def test_a_tree_is_numbered_as_luperson_s_own_script_does_it(cities, tmp_path):
    report = import_images(cities, tmp_path / "store")
    assert (report.found, report.imported, report.skipped) == (9, 9, {})
    expected = numbered_by_hand(cities)
    assert contents(tmp_path / "store") == expected
    assert "02_01_0003_00000000" in expected, (
        "de is the third country, bonn its second city: folders without images count"
    )
    assert pickle.loads((tmp_path / "store" / "keys.pkl").read_bytes()) == {"keys": sorted(expected)}
    index = Store(tmp_path / "store").index()
    assert list(index.columns) == ["key", "country", "city", "video", "path"]
    paths = index["country"] + "/" + index["city"] + "/" + index["video"]
    assert (paths == index["path"].str.rpartition("/")[0]).all()
    assert [(cities / path).read_bytes() for path in index["path"]] == [expected[key] for key in index["key"]]


def test_missing_levels_are_number_0_and_deeper_ones_belong_to_the_video(tmp_path):
    files = ["top.jpg", "v/one.jpg", "c/v/two.jpg", "a/b/c/three.jpg", "a/b/c/d/e/four.jpg"]
    write_files(tmp_path / "in", {name: picture(number) for number, name in enumerate(files)})
    import_images(tmp_path / "in", tmp_path / "store")
    index = Store(tmp_path / "store").index().set_index("path")
    rows = {path: (row["key"], row["country"], row["city"], row["video"]) for path, row in index.iterrows()}
    assert rows == {
        "top.jpg": ("00_00_0000_00000000", "", "", ""),
        "v/one.jpg": ("00_00_0001_00000000", "", "", "v"),
        "c/v/two.jpg": ("00_01_0000_00000000", "", "c", "v"),
        "a/b/c/three.jpg": ("01_00_0000_00000000", "a", "b", "c"),
        "a/b/c/d/e/four.jpg": ("01_00_0001_00000000", "a", "b", "c/d/e"),
    }


def test_pid_and_camera_are_read_where_all_names_have_them(tmp_path):
    names = ["train/0002_c1s1_000451_03.jpg", "train/0012_c12_0036.jpg", "query/-1_c3s1_000001_00.jpg"]
    write_files(tmp_path / "in", {name: picture(number) for number, name in enumerate(names)})
    import_images(tmp_path / "in", tmp_path / "store")
    index = Store(tmp_path / "store").index()
    found = {path: (pid, camid) for path, pid, camid in zip(index["path"], index["pid"], index["camid"], strict=True)}
    assert found == {names[0]: (2, 1), names[1]: (12, 12), names[2]: (-1, 3)}
    assert index["pid"].dtype == index["camid"].dtype == np.int32
    write_files(tmp_path / "in", {"query/somebody.jpg": picture(9)})
    import_images(tmp_path / "in", tmp_path / "other")
    assert "pid" not in Store(tmp_path / "other").index().columns


def test_names_that_are_keys_are_kept_if_all_are_and_none_is_twice(tmp_path):
    keys = ["30_00_0292_00000238", "04_11_0001_00000002", "30_00_0292_00000002"]
    write_files(tmp_path / "in", {f"{number % 2}/{key}.jpg": picture(number) for number, key in enumerate(keys)})
    report = import_images(tmp_path / "in", tmp_path / "kept")
    assert contents(tmp_path / "kept") == {key: picture(number) for number, key in enumerate(keys)}
    assert report.notes == []
    index = Store(tmp_path / "kept").index()
    assert list(index["key"]) == sorted(keys)
    assert list(index["path"]) == [
        "1/04_11_0001_00000002.jpg",
        "0/30_00_0292_00000002.jpg",
        "0/30_00_0292_00000238.jpg",
    ]
    assert list(index["country"]) == ["4", "30", "30"], "fewer than three levels of folders: the keys say it"

    write_files(tmp_path / "in", {"twice/30_00_0292_00000238.jpg": picture(7)})
    report = import_images(tmp_path / "in", tmp_path / "twice")
    assert sorted(contents(tmp_path / "twice")) == [
        f"00_00_000{v}_0000000{i}" for v, i in ((0, 0), (0, 1), (1, 0), (2, 0))
    ]
    assert "1 come twice" in report.notes[0]
    (tmp_path / "in/twice/30_00_0292_00000238.jpg").rename(tmp_path / "in/twice/other.jpg")
    report = import_images(tmp_path / "in", tmp_path / "some")
    assert "3 of 4 file names" in report.notes[0]
    assert contents(tmp_path / "some")["00_00_0002_00000000"] == picture(7)


def test_what_is_left_out_is_counted_and_named_and_leaves_a_gap(tmp_path):
    whole = picture(1)
    files = {
        "v/a.jpg": whole,
        "v/b.jpg": whole[: len(whole) // 2],
        "v/c.jpg": b"",
        "v/d.jpeg": b"no image",
        "v/e.PNG": b"",
    }
    files |= {"v/f.png": picture(5, "PNG"), "v/g.bmp": picture(6, "BMP"), "v/h.webp": picture(7, "WEBP")}
    files |= {"v/notes.txt": b"x", "v/Thumbs.db": b"x", "v/._a.jpg": b"x", ".git/a.jpg": whole}
    write_files(tmp_path / "in", files)
    os.mkfifo(tmp_path / "in/v/pipe.jpg")
    (tmp_path / "in/v/gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "in/v/round").symlink_to(tmp_path / "in")
    report = import_images(tmp_path / "in", tmp_path / "store")
    assert contents(tmp_path / "store") == {
        f"00_00_0000_0000000{number}": files[f"v/{name}"]
        for number, name in ((0, "a.jpg"), (5, "f.png"), (6, "g.bmp"), (7, "h.webp"))
    }
    assert (report.found, report.imported) == (8, 4)
    assert report.bytes == sum(map(len, contents(tmp_path / "store").values()))
    assert report.skipped == {
        "hidden": {"count": 2, "first": [".git", "v/._a.jpg"]},
        "no image files": {"count": 4, "first": ["v/Thumbs.db", "v/gone.jpg", "v/notes.txt", "v/pipe.jpg"]},
        "folders that a link leads to a second time": {"count": 1, "first": ["v/round"]},
        "no whole image": {"count": 4, "first": ["v/b.jpg", "v/c.jpg", "v/d.jpeg", "v/e.PNG"]},
    }
    assert report.notes == ["not all images are JPEG files (1 .bmp, 2 .png, 1 .webp): they are stored as they are"]
    assert json.loads((tmp_path / "store/store.json").read_text())["report"]["skipped"] == report.skipped
    text = describe_import(report)
    assert "4 of 8 images" in text
    assert "no whole image: 4 (v/b.jpg, v/c.jpg, v/d.jpeg, v/e.PNG)" in text

    report = import_images(tmp_path / "in", tmp_path / "unchecked", check=False)
    assert report.imported == 6, "unchecked, only empty files are left out"


KEYS = ["30_00_0292_00000238", "30_00_0292_00000239", "04_11_0001_00000002"]


@pytest.mark.parametrize("form", ["list", "dict", "none"])
def test_the_released_lmdb_comes_with_a_list_a_dict_or_nothing(tmp_path, form):
    records = {key: picture(number) for number, key in enumerate(KEYS)}
    keys = {"list": KEYS, "dict": {"keys": KEYS, "pids": [7, -1, 7], "vids": np.array([5, 5, 6])}, "none": None}[form]
    write_released(tmp_path / "in", records, keys, name="lup_lmdb")
    before = tree(tmp_path / "in")
    report = import_images(tmp_path / "in", tmp_path / "store")
    assert tree(tmp_path / "in") == before, "reading leaves no file behind"
    assert contents(tmp_path / "store") == records
    assert (report.kind, report.imported, report.skipped) == ("released LMDB", 3, {})
    index = Store(tmp_path / "store").index()
    assert list(index["key"]) == sorted(KEYS)
    assert index[["country", "city", "video"]].to_numpy().tolist() == [
        ["4", "11", "1"],
        ["30", "0", "292"],
        ["30", "0", "292"],
    ]
    listed = pickle.loads((tmp_path / "store/keys.pkl").read_bytes())
    if form == "dict":
        assert listed == {"keys": sorted(KEYS), "pids": [7, 7, -1], "vids": [6, 5, 5]}
        assert index[["pids", "vids"]].to_numpy().tolist() == [[7, 6], [7, 5], [-1, 5]]
    else:
        assert listed == {"keys": sorted(KEYS)}


def test_keys_that_are_listed_twice_absent_or_not_listed_are_counted(tmp_path):
    records = {f"crop {number}": picture(number) for number in range(6)}  # not LUPerson's keys, and kept
    write_released(tmp_path / "in", records)
    listed = ["crop 4", "crop 0", "crop 4", "no such 1", "crop 1", "crop 4", "no such 0"]
    (tmp_path / "some.pkl").write_bytes(pickle.dumps(listed))
    report = import_images(tmp_path / "in/lmdb/data.mdb", tmp_path / "store", keys=tmp_path / "some.pkl")
    assert contents(tmp_path / "store") == {key: records[key] for key in ("crop 0", "crop 1", "crop 4")}
    assert (report.found, report.imported) == (5, 3)
    assert report.skipped == {
        "listed more than once": {"count": 2, "first": ["crop 4", "crop 4"]},
        "listed, but not there": {"count": 2, "first": ["no such 0", "no such 1"]},
        "in the LMDB, but not listed in keys.pkl": {"count": 3, "first": []},
    }
    assert Store(tmp_path / "store").index()["country"].tolist() == ["", "", ""]


def test_keys_that_no_store_can_have_are_left_out(tmp_path):
    with lmdb.open(str(tmp_path / "in"), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for key in (b"plain", "caf\u00e9".encode()):
            transaction.put(key, picture(1))
    report = import_images(tmp_path / "in", tmp_path / "store")
    assert list(contents(tmp_path / "store")) == ["plain"]
    assert report.skipped == {"keys that are not ASCII": {"count": 1, "first": ["caf\\xc3\\xa9"]}}


def test_a_store_is_imported_with_its_index_and_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(from_store, "ROWS", 2)
    write_released(
        tmp_path / "in", {key: picture(number) for number, key in enumerate(KEYS)}, {"keys": KEYS, "pids": [1, 2, 3]}
    )
    import_images(tmp_path / "in", tmp_path / "one")
    import_images(tmp_path / "one", tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    pd.testing.assert_frame_equal(Store(tmp_path / "one").index(), Store(tmp_path / "two").index())
    assert (tmp_path / "one/keys.pkl").read_bytes() == (tmp_path / "two/keys.pkl").read_bytes()
    with pytest.raises(InputError, match="keys of its own"):
        import_images(tmp_path / "one", tmp_path / "three", keys=tmp_path / "in/keys.pkl")


def test_the_index_of_many_crops_is_made_in_pieces(cities, tmp_path, monkeypatch):
    import_images(cities, tmp_path / "one")
    monkeypatch.setattr(from_folder, "ROWS", 2)
    import_images(cities, tmp_path / "two")
    pd.testing.assert_frame_equal(Store(tmp_path / "one").index(), Store(tmp_path / "two").index())


KILLED = """
import os, signal, sys, threading, time
from pathlib import Path
from lab.data import store_writer
from lab.data.importing import import_images

store_writer.BATCH_BYTES = 30_000
source, out, whole = map(Path, sys.argv[1:])
started = time.perf_counter()
if os.fork() == 0:
    import_images(source, whole)
    os._exit(0)
os.wait()
needed = time.perf_counter() - started
killed = 0
for moment in [0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95] * 2:
    child = os.fork()
    if child == 0:
        threading.Thread(target=import_images, args=(source, out), kwargs={"threads": 2}).start()
        time.sleep(moment * needed)
        os.kill(os.getpid(), signal.SIGKILL)
    os.wait()
    killed += not (out / "store.json").exists()
import_images(source, out)
print(killed)
"""


def test_an_import_that_is_killed_goes_on_and_ends_with_the_same_bytes(tmp_path):
    files = {
        f"{v % 3}/c/{v}/{number}.jpg": picture(100 * v + number, size=(24, 48))
        for v in range(9)
        for number in range(40)
    }
    for name in list(files)[::50]:
        files[name] = files[name][:200]  # broken ones, all over the place
    write_files(tmp_path / "in", files)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "in"), str(tmp_path / "out"), str(tmp_path / "whole")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 3, "killed before it was finished, several times"
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert len(contents(tmp_path / "out")) == 360 - 8


def test_the_same_import_again_finds_the_store_and_another_is_refused(cities, tmp_path):
    first = import_images(cities, tmp_path / "store")
    before = tree(tmp_path / "store")
    again = import_images(cities, tmp_path / "store")
    assert again.already
    assert (again.imported, again.skipped) == (first.imported, first.skipped)
    assert describe_import(again).startswith("there already, from images of the same names: 9 of 9 images")
    with pytest.raises(InputError, match="check was True, now False"):
        import_images(cities, tmp_path / "store", check=False)
    write_files(cities, {"de/bonn/v1/late.jpg": picture(77)})
    with pytest.raises(InputError, match="images was 9, now 10"):
        import_images(cities, tmp_path / "store")
    assert tree(tmp_path / "store") == before


def test_progress_is_told_up_to_the_last_image(cities, tmp_path):
    seen = []
    import_images(cities, tmp_path / "store", progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 9)
    assert seen[-1] == (9, 9)
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("files", "keys", "out", "said"),
    [
        (None, None, "store", "there is nothing to read at"),
        ({"a.txt": b"x"}, None, "store", r"holds no image \(no image files: 1 \(a.txt\)\)"),
        ({"a.jpg": b"x", "b.jpg": b""}, None, "store", r"no image of .* can be used \(no whole image: 2 \(a.jpg, b.jpg\)\)"),
        ({"a.jpg": picture(1)}, "in/a.jpg", "store", "nothing that --keys could list"),
        ({"a.jpg": picture(1)}, None, "in/store", "lies in .* which is read"),
        ({"a.jpg": picture(1), "b.tar": b""}, None, "store", "1 tar file.* and 1 image"),
        ({"b.tar": b"garbage" * 400}, None, "store", "no whole tar file"),
        ({"lmdb/data.mdb": b"garbage" * 4000}, None, "store", "no LMDB that can be read"),
        ({"lmdb/data.mdb": b""}, None, "store", "no LMDB that can be read"),
        ({"lmdb/data.mdb": b"x", "keys.pkl": b"no pickle"}, None, "store", "keys.pkl is not a whole pickle|no LMDB"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(tmp_path, files, keys, out, said):
    if files is not None:
        write_files(tmp_path / "in", files)
    with pytest.raises(InputError, match=said) as caught:
        import_images(tmp_path / "in", tmp_path / out, keys=keys and tmp_path / keys)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", [0.9, 0.01])
def test_an_lmdb_that_is_cut_short_is_refused_before_it_can_kill_the_process(tmp_path, part):
    write_released(tmp_path / "in", {f"{number:08d}": bytes([number]) * 9000 for number in range(200)})
    file = tmp_path / "in/lmdb/data.mdb"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * part)])
    code = "import sys; from lab.data.importing import import_images; import_images(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(tmp_path / "in"), str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "InputError" in done.stderr
    assert "cut short" in done.stderr


def test_two_hundred_mutated_jpeg_records_are_imported_or_counted(tmp_path):
    random = np.random.default_rng(5)
    whole, records = picture(3, size=(32, 64)), {}
    for number in range(200):
        record = bytearray(whole)
        for _ in range(random.integers(1, 9)):
            record[random.integers(0, len(record))] = random.integers(0, 256)
        records[make_key(0, 0, 0, number)] = bytes(
            record[: random.integers(1, len(record) + 1)] if number % 2 else record
        )
    write_released(tmp_path / "in", records, list(records))
    report = import_images(tmp_path / "in", tmp_path / "store")
    kept = contents(tmp_path / "store")
    assert kept.items() <= records.items()
    broken = sum(what["count"] for what in report.skipped.values())
    assert 50 < broken < 200
    assert (report.found, report.imported, broken) == (200, len(kept), 200 - len(kept))
    for record in kept.values():
        Image.open(io.BytesIO(record)).load()  # Pillow agrees that they are images


def test_a_folder_comes_back_as_it_was(cities, tmp_path):
    write_files(
        cities,
        {
            "fr/lyon/a/\u00fcber all.png": picture(50, "PNG"),
            "fr/deep/er/and/deeper/x.JPG": picture(51),
            "0.jpg": picture(52),
        },
    )
    import_images(cities, tmp_path / "store")
    report = export_jpegs(tmp_path / "store", tmp_path / "out")
    index = (tmp_path / "out/index.parquet").read_bytes()
    assert index == (tmp_path / "store/index.parquet").read_bytes()
    expected = tree(cities)
    assert tree(tmp_path / "out") == expected | {"index.parquet": index}
    assert (report.images, report.there, report.bytes) == (12, 0, sum(map(len, expected.values())))


def test_the_released_lmdb_becomes_files_by_the_numbers_of_its_keys(tmp_path):
    records = {key: picture(number) for number, key in enumerate(KEYS)} | {"00_00_0000_00000000": picture(9, "PNG")}
    write_released(tmp_path / "in", records, [*records, "00_00_0000_00000001"])
    expected = {
        "30/00/0292/30_00_0292_00000238.jpg": picture(0),
        "30/00/0292/30_00_0292_00000239.jpg": picture(1),
        "04/11/0001/04_11_0001_00000002.jpg": picture(2),
        "00/00/0000/00_00_0000_00000000.png": picture(9, "PNG"),
    }
    report = export_jpegs(tmp_path / "in", tmp_path / "direct")
    assert tree(tmp_path / "direct") == expected
    assert report.left_out == ("00_00_0000_00000001",)
    assert "left out: 1 that could not be read (00_00_0000_00000001)" in describe_export(report)
    import_images(tmp_path / "in", tmp_path / "store")
    export_jpegs(tmp_path / "store", tmp_path / "out")
    assert {name: content for name, content in tree(tmp_path / "out").items() if name != "index.parquet"} == expected
    import_images(tmp_path / "out", tmp_path / "again")
    assert contents(tmp_path / "again") == records, "and the files keep their keys"


def test_an_export_goes_on_and_overwrites_nothing(cities, tmp_path):
    import_images(cities, tmp_path / "store")
    whole = tree(cities)
    names = list(whole)
    write_files(tmp_path / "out", {name: whole[name] for name in names[:4]})
    write_files(tmp_path / "out", {f"{Path(names[4]).parent}/.export.part": b"half of a fi"})
    report = export_jpegs(tmp_path / "store", tmp_path / "out")
    assert (report.images, report.there) == (9, 4)
    assert "9 images" in describe_export(report)
    assert "4 were there already" in describe_export(report)
    assert {name: content for name, content in tree(tmp_path / "out").items() if name != "index.parquet"} == whole
    (tmp_path / "out" / names[5]).write_bytes(b"something of mine")
    with pytest.raises(InputError, match="is there already with other content"):
        export_jpegs(tmp_path / "store", tmp_path / "out")
    assert (tmp_path / "out" / names[5]).read_bytes() == b"something of mine"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot write"):
        export_jpegs(tmp_path / "store", tmp_path / "file")


ODD_KEYS = [
    "../../up",
    "/etc/passwd",
    "..",
    ".",
    ".hidden",
    "a/b",
    "a\\b",
    "100 % \t\n;",
    "plain",
    "%2E%2E",
    "a//b",
    "con.jpg",
]


def test_no_key_leads_out_of_the_folder(tmp_path):
    records = {key: picture(number) for number, key in enumerate(ODD_KEYS)}
    write_released(tmp_path / "in", records)
    before = set(tmp_path.rglob("*"))
    out = tmp_path / "deep/er/out"
    export_jpegs(tmp_path / "in", out)
    assert {path for path in set(tmp_path.rglob("*")) - before if path.is_file()} == set(out.iterdir())
    assert sorted(tree(out).values()) == sorted(records.values()), "flat, and each under a name of its own"
    assert not any(name.startswith(".") for name in tree(out))
    assert "plain.jpg" in tree(out)


@pytest.mark.parametrize(
    "path", ["../out.jpg", "/tmp/out.jpg", "a/../../out.jpg", "a//b.jpg", "./a.jpg", "a\0.jpg", "a/.."]
)
def test_a_path_in_the_index_that_leads_out_of_the_folder_is_refused(tmp_path, path):
    write_files(tmp_path / "in", {"a.jpg": picture(1)})
    import_images(tmp_path / "in", tmp_path / "store")
    index = Store(tmp_path / "store").index().assign(path=path)
    index.to_parquet(tmp_path / "store/index.parquet", index=False)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="leads out of the folder"):
        export_jpegs(tmp_path / "store", tmp_path / "out")
    assert {path for path in set(tmp_path.rglob("*")) - before if path.is_file()} == set()


def test_a_store_comes_back_from_tar_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(from_tars, "ROWS", 3)
    write_released(tmp_path / "in", {key: picture(number) for number, key in enumerate(KEYS * 2)}, KEYS)
    write_files(
        tmp_path / "people", {f"{v}/000{v}_c{number}s1.jpg": picture(v + number) for v in range(4) for number in (1, 2)}
    )
    for source in ("in", "people"):
        import_images(tmp_path / source, tmp_path / f"{source}-store")
        report = export_tars(tmp_path / f"{source}-store", tmp_path / f"{source}-tars", max_bytes=6000)
        assert report.shards > 1
        assert report.images == len(Store(tmp_path / f"{source}-store"))
        again = import_images(tmp_path / f"{source}-tars", tmp_path / f"{source}-again")
        assert (again.kind, again.notes, again.skipped) == ("folder of tar shards", [], {})
        assert contents(tmp_path / f"{source}-again") == contents(tmp_path / f"{source}-store")
        before, after = (Store(tmp_path / f"{source}-{form}").index() for form in ("store", "again"))
        pd.testing.assert_frame_equal(after[before.columns], before)


def test_a_built_index_keeps_its_types_and_what_is_not_known_through_tar_shards(tmp_path):
    write_files(tmp_path / "in", {f"{number}.jpg": picture(number) for number in range(3)})
    import_images(tmp_path / "in", tmp_path / "store")
    index = Store(tmp_path / "store").index()[["key", "country", "city", "video"]]
    index["frame"], index["track"] = np.array([1, 2, 70000], np.int32), np.array([-1, 0, 5], np.int32)
    for name in ("x", "y", "width", "height"):
        index[name] = np.array([0.1, -3.25, 1e4], np.float32)
    index["score"] = np.array([0.73, np.nan, 1.0], np.float32)
    index["crop_height"] = index["crop_width"] = np.array([24, 24, 24], np.int16)
    index.to_parquet(tmp_path / "store/index.parquet", index=False)
    export_tars(tmp_path / "store", tmp_path / "tars")
    import_images(tmp_path / "tars", tmp_path / "again")
    pd.testing.assert_frame_equal(Store(tmp_path / "again").index()[list(index.columns)], index)


def test_shards_of_the_webdataset_library_are_read_with_their_json(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    rows = [{"id": 3, "who": "ana", "tags": ["a"]}, {"id": 2**40, "who": None, "tags": {}, "odd": True}, {"who": "bo"}]
    with webdataset.TarWriter(str(tmp_path / "people.tar")) as writer:
        for number, row in enumerate(rows):
            writer.write({"__key__": f"set/p{number}", "jpg": picture(number), "json": row})
        writer.write({"__key__": "set/without", "png": picture(9, "PNG"), "txt": "x"})
    report = import_images(tmp_path / "people.tar", tmp_path / "store")
    assert contents(tmp_path / "store") == {
        **{f"set/p{number}": picture(number) for number in range(3)},
        "set/without": picture(9, "PNG"),
    }
    assert report.skipped == {"no image files": {"count": 1, "first": ["people.tar/set/without.txt"]}}
    index = Store(tmp_path / "store").index().set_index("key")
    assert index["who"].fillna("?").tolist() == ["ana", "?", "bo", "?"]
    assert index["id"].tolist()[:2] == [3, 2**40]
    assert index["tags"].fillna("?").tolist() == ['["a"]', "{}", "?", "?"]
    assert index.loc["set/p1", "odd"]


def test_shards_whose_keys_are_alike_are_numbered_and_broken_rows_counted(tmp_path):
    (tmp_path / "tars").mkdir()
    for shard in range(2):
        with tarfile.open(tmp_path / f"tars/{shard}.tar", "w") as archive:
            for name, content in (
                ("0.jpg", picture(shard)),
                ("0.json", b'{"n": 1}' if shard else b"{nonsense"),
                ("1.jpg", picture(5)),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    report = import_images(tmp_path / "tars", tmp_path / "store")
    assert contents(tmp_path / "store") == {
        "00_00_0000_00000000": picture(0),
        "00_00_0000_00000001": picture(5),
        "00_00_0001_00000000": picture(1),
        "00_00_0001_00000001": picture(5),
    }
    assert report.notes == ["2 images have the name of another one: all images are numbered anew"]
    assert report.skipped == {
        ".json that cannot be read (its image is kept)": {"count": 1, "first": ["00_00_0000_00000000"]}
    }
    assert Store(tmp_path / "store").index()["n"].tolist()[2] == 1


@pytest.mark.skipif(not (SHARED / "market1501-dev").is_dir(), reason=f"no images at {SHARED / 'market1501-dev'}")
def test_real_crops_come_back_as_they_were(tmp_path):
    source = SHARED / "market1501-dev/query"
    report = import_images(source, tmp_path / "store")
    assert (report.imported, report.skipped) == (len(os.listdir(source)), {})
    export_jpegs(tmp_path / "store", tmp_path / "out")
    (tmp_path / "out/index.parquet").unlink()
    assert tree(tmp_path / "out") == tree(source)
