"""The store of crops: LUPerson's keys and LMDB, ours beside it, several processes, and writers that are killed."""

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import lmdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lab.data import store_writer
from lab.data.keys import make_key, number_places, parse_key, split_keys, widths_for
from lab.data.store import Store, is_store
from lab.data.store_writer import StoreWriter, writing
from lab.errors import InputError

PLAN = {"kind": "test", "settings": {"quality": 95}}


def records(count: int, seed: int = 0) -> list[tuple[bytes, bytes]]:
    random = np.random.default_rng(seed)
    return [(f"00_00_0000_{i:08d}".encode(), random.bytes(int(random.integers(1, 9000)))) for i in range(count)]


def write_store(folder: Path, content, plan=PLAN) -> None:
    with writing(folder, plan) as writer:
        for _ in writer.write(record for record in content if writer.last is None or record[0] > writer.last):
            pass
        keys = [key.decode() for key, _ in content]
        writer.finish([pa.table({"key": keys, "frame": list(range(len(keys)))})], plan, {"kept": len(keys)})


def write_released(folder: Path, content, keys) -> None:
    """LUPerson's layout as its description has it: an LMDB of JPEG bytes by ASCII key, and a pickled list or dict."""
    with lmdb.open(str(folder / "lmdb"), map_size=1 << 26) as environment, environment.begin(write=True) as transaction:
        for key, record in content:
            transaction.put(key, record)
    if keys is not None:
        (folder / "keys.pkl").write_bytes(pickle.dumps(keys))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_a_key_is_country_city_video_and_image():
    assert make_key(30, 0, 292, 238) == "30_00_0292_00000238"
    assert parse_key("30_00_0292_00000238") == (30, 0, 292, 238)
    assert parse_key("0002_c1s1_000451_03") is None
    assert parse_key("30_00_0292_00000238.jpg") is None


def test_places_are_numbered_as_the_published_script_numbers_folders(tmp_path):
    names = ["de/bonn/v1", "de/bonn/v10", "de/bonn/v2", "at/wien/z", "de/aachen/x", "fr/lyon/a", "at/wien/b"]
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    expected = {}
    for i, country in enumerate(sorted(os.listdir(tmp_path))):
        for j, city in enumerate(sorted(os.listdir(tmp_path / country))):
            for k, video in enumerate(sorted(os.listdir(tmp_path / country / city))):
                expected[country, city, video] = (i, j, k)
    assert number_places(tuple(name.split("/")) for name in names) == expected
    assert expected["de", "bonn", "v10"] == (1, 1, 1)


def test_keys_grow_together_so_that_they_sort_as_numbers():
    assert widths_for([(0, 0, 0)]) == (2, 2, 4, 8)
    widths = widths_for([(7, 0, 12_345), (100, 3, 1)])
    assert widths == (3, 2, 5, 8)
    numbers = [(video, image) for video in (9, 999, 1000, 9999, 10_000, 12_345) for image in (0, 11)]
    keys = [make_key(7, 0, *number, widths) for number in numbers]
    assert sorted(keys) == keys
    np.testing.assert_array_equal(split_keys(np.array(keys, dtype=np.bytes_)), [(7, 0, *number) for number in numbers])
    for other in (
        b"other",
        b"00_00_00000_00000000",
        b"00_00_000a_00000000",
        b"00_00_0000-00000000",
        b"00_00_0000_0000000",
    ):
        assert split_keys(np.array([b"00_00_0000_00000000", other])) is None
    assert split_keys(np.array([b"00_00_0000_" + b"9" * 30])) is None


@pytest.mark.parametrize("kind", ["list", "dict", "labels", "bytes", "none", "above"])
def test_the_released_layout_opens_as_it_is(tmp_path, kind):
    content = records(20)
    names = [key.decode() for key, _ in content][::-1]  # the order of the list, not of the LMDB
    lists = {
        "list": names,
        "dict": {"keys": names},
        "labels": {"keys": names, "pids": list(range(20)), "vids": [3] * 20},
        "bytes": [name.encode() for name in names],
        "above": names,
        "none": None,
    }
    write_released(tmp_path, content, lists[kind])
    assert is_store(tmp_path)
    store = Store(tmp_path / "lmdb" if kind == "above" else tmp_path)
    expected = dict(content)
    assert [store.name(i) for i in range(20)] == (names[::-1] if kind == "none" else names)
    assert all(store.read(i) == expected[store.name(i).encode()] for i in range(20))
    index = store.index()
    assert list(index["key"]) == [store.name(i) for i in range(20)]
    assert set(index["video"]) == {"0"}
    if kind == "labels":
        assert list(index["pids"]) == list(range(20))


def test_a_listed_key_that_the_lmdb_lacks_is_an_error_of_that_crop_alone(tmp_path):
    content = records(3)
    write_released(tmp_path, content, [key.decode() for key, _ in content] + ["00_00_0000_00000099"])
    store = Store(tmp_path)
    with pytest.raises(OSError, match="no record of this key"):
        store.read(3)
    assert store.read(2) == content[2][1]


def test_what_was_written_is_read_again_by_us_and_in_the_published_way(tmp_path):
    content = records(50)
    write_store(tmp_path / "s", content)
    store = Store(tmp_path / "s")
    assert len(store) == 50
    assert [store.read(i) for i in range(50)] == [record for _, record in content]
    assert isinstance(store.keys, np.memmap)
    assert store.about["bytes"] == sum(len(record) for _, record in content)
    assert store.about["report"] == {"kept": 50}
    assert list(store.index(["frame"])["frame"]) == list(range(50))
    assert list(pd.read_parquet(tmp_path / "s" / "index.parquet")["key"]) == [key.decode() for key, _ in content]
    keys = pickle.loads((tmp_path / "s" / "keys.pkl").read_bytes())["keys"]
    with lmdb.open(str(tmp_path / "copy"), map_size=1 << 26):
        pass  # LMDB opens a folder once per process, and the store has this one open
    (tmp_path / "copy" / "data.mdb").write_bytes((tmp_path / "s" / "lmdb" / "data.mdb").read_bytes())
    with lmdb.open(str(tmp_path / "copy"), readonly=True) as environment, environment.begin() as transaction:
        assert [transaction.get(key.encode("ascii")) for key in keys] == [record for _, record in content]


def test_a_store_travels_to_other_processes_as_its_path(tmp_path):
    content = records(2000)
    write_store(tmp_path, content)
    store = Store(tmp_path)
    assert store.read(7) == content[7][1]
    assert len(pickle.dumps(store)) < 2000
    assert pickle.loads(pickle.dumps(store)).read(1999) == content[1999][1]
    assert Store(tmp_path).read(3) == content[3][1]  # a second one in the same process


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("released", [False, True])
def test_processes_read_at_once(tmp_path, method, released):
    content = records(40)
    if released:
        write_released(tmp_path, content, [key.decode() for key, _ in content])
    else:
        write_store(tmp_path, content)
    store = Store(tmp_path)
    assert store.read(0) == content[0][1]  # it is open in this process when the others start
    with multiprocessing.get_context(method).Pool(3) as pool:
        assert pool.map(store.read, range(40)) == [record for _, record in content]
    assert store.read(1) == content[1][1]


WRITE_AND_DIE = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from lab.data import store_writer
from test_store import records, write_store
store_writer.BATCH_BYTES, store_writer.MAP_STEP = 60_000, 65_536
def some(count):
    for number, record in enumerate(records(300)):
        if number == count:
            os._exit(9)
        yield record
class Dying(list):
    def __iter__(self):
        return some({count})
write_store(Path({folder!r}), Dying(records(300)))
"""


def die_at(folder: Path, count: int) -> None:
    code = WRITE_AND_DIE.format(tests=str(Path(__file__).parent), folder=str(folder), count=count)
    assert subprocess.run([sys.executable, "-c", code]).returncode == (9 if count < 300 else 0)


def test_a_writer_that_was_killed_goes_on_and_ends_with_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(store_writer, "BATCH_BYTES", 60_000)
    monkeypatch.setattr(store_writer, "MAP_STEP", 65_536)  # so the room grows with nearly every batch
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    write_store(whole, records(300))
    for count in (0, 3, 120, 121, 290):
        die_at(broken, count)
        with pytest.raises(InputError, match="not finished"):
            Store(broken)
    die_at(broken, 1000)
    assert tree(broken) == tree(whole)
    assert [Store(whole).read(i) for i in range(300)] == [record for _, record in records(300)]


def test_a_finished_store_is_left_as_it_is(tmp_path):
    write_store(tmp_path, records(5))
    before = tree(tmp_path)
    with writing(tmp_path, PLAN) as writer:
        assert writer is None
    with (
        pytest.raises(InputError, match="quality was 95, now 80"),
        writing(tmp_path, {**PLAN, "settings": {"quality": 80}}),
    ):
        pass
    assert tree(tmp_path) == before


def test_a_folder_with_other_things_is_left_as_it_is(tmp_path):
    (tmp_path / "thesis.txt").write_text("all my work")
    with pytest.raises(InputError, match="not a store"), writing(tmp_path, PLAN):
        pass
    assert tree(tmp_path) == {"thesis.txt": b"all my work"}


def test_nobody_else_writes_at_the_same_time(tmp_path):
    with writing(tmp_path, PLAN):
        code = f"from lab.data.store_writer import writing\nwith writing({str(tmp_path)!r}, {PLAN!r}): pass"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "another process is writing" in other.stderr


def test_keys_have_to_grow(tmp_path):
    with pytest.raises(InputError, match="keys that grow"), writing(tmp_path, PLAN) as writer:
        list(writer.write([(b"b", b"1"), (b"a", b"2")]))
    assert StoreWriter(tmp_path).count == 0


def test_an_index_of_other_crops_is_refused(tmp_path):
    with writing(tmp_path, PLAN) as writer:
        list(writer.write([(b"a", b"1"), (b"b", b"2")]))
        with pytest.raises(ValueError, match="not those of the crops"):
            writer.finish([pa.table({"key": ["a", "c"]})], PLAN, {})
        with pytest.raises(ValueError, match="has 1 rows"):
            writer.finish([pa.table({"key": ["a"]})], PLAN, {})
    assert not (tmp_path / "store.json").exists()


def test_what_is_no_store_is_said_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match="there is no store"):
        Store(tmp_path)
    (tmp_path / "shard-0-of-2").mkdir()
    with pytest.raises(InputError, match="lab data merge"):
        Store(tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match="no LMDB that can be read"):
        Store(broken)
    write_store(tmp_path / "s", records(500))
    file = tmp_path / "s" / "lmdb" / "data.mdb"
    os.truncate(file, file.stat().st_size * 3 // 4)
    with pytest.raises(InputError, match="is cut short"):
        Store(tmp_path / "s").read(499)
    for content in (b"no array", b"", b"PK\x03\x04", (tmp_path / "s" / "keys.npy").read_bytes()[:-19]):
        (tmp_path / "s" / "keys.npy").write_bytes(content)
        with pytest.raises(InputError, match=r"keys\.npy"):
            Store(tmp_path / "s")


@pytest.mark.parametrize("wrong", [{"bytes": None}, {"report": [1]}, {"format": 99}, {"images": "5"}])
def test_a_broken_description_is_said_in_a_sentence(tmp_path, wrong):
    write_store(tmp_path, records(5))
    about = json.loads((tmp_path / "store.json").read_text()) | wrong
    (tmp_path / "store.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=r"store\.json cannot be read"):
        Store(tmp_path)


def test_an_index_that_is_short_is_refused(tmp_path):
    write_store(tmp_path, records(5))
    pq.write_table(pq.read_table(tmp_path / "index.parquet").slice(0, 3), tmp_path / "index.parquet")
    with pytest.raises(InputError, match="3 rows and the store 5 crops"):
        Store(tmp_path).index()
