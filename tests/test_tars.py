"""Tar shards: written for and read like the webdataset library, and no broken one passes for a whole one."""

import io
import json
import random
import tarfile

import numpy as np
import pytest
import webdataset as wds

from lab.data import tars
from lab.data.tars import Tars, write_tars
from lab.errors import InputError

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


def records(count: int, size: int = 700):
    """Keys, bytes that begin like a JPEG, and rows of an index."""
    for number in range(count):
        image = JPEG + random.Random(number).randbytes(size + number)
        row = {"video": f"v{number}", "frame": np.int32(number), "score": np.float32("nan" if number == 1 else 0.5)}
        yield f"00_00_0000_{number:08d}", image, row


def contents(folder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def pack(file, members: dict[str, bytes], kind: int = tarfile.GNU_FORMAT):
    with tarfile.open(file, "w", format=kind) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file


def read_all(source: Tars) -> list[bytes]:
    return [source.read(number) for number in range(len(source))]


def test_a_shard_holds_each_image_and_its_row(tmp_path):
    given = [*records(3), ("00_00_0000_00000003", PNG + b"...", {"pid": np.int64(7), "video": "Zürich"})]
    assert write_tars(iter(given), tmp_path)["images"] == 4
    with tarfile.open(tmp_path / "crops-000000.tar") as archive:
        members = archive.getmembers()
        files = {member.name: archive.extractfile(member).read() for member in members}
    keys = [key for key, _, _ in given]
    endings = ["jpg", "jpg", "jpg", "png"]
    assert list(files) == [
        name for key, ending in zip(keys, endings, strict=True) for name in (f"{key}.{ending}", f"{key}.json")
    ]
    assert [files[f"{key}.{ending}"] for key, ending in zip(keys, endings, strict=True)] == [row[1] for row in given]
    assert json.loads(files[f"{keys[0]}.json"]) == {"video": "v0", "frame": 0, "score": 0.5}
    assert json.loads(files[f"{keys[1]}.json"]) == {"video": "v1", "frame": 1, "score": None}
    assert json.loads(files[f"{keys[3]}.json"]) == {"pid": 7, "video": "Zürich"}
    assert {(m.mode, m.uid, m.gid, m.mtime, m.uname, m.gname) for m in members} == {(0o644, 0, 0, 0, "", "")}


def test_the_webdataset_library_reads_our_shards(tmp_path):
    given = list(records(9))
    assert write_tars(iter(given), tmp_path, max_bytes=8000)["shards"] > 2
    shards = [str(shard) for shard in sorted(tmp_path.glob("*.tar"))]
    samples = list(wds.WebDataset(shards, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [key for key, _, _ in given]
    assert [sample["jpg"] for sample in samples] == [image for _, image, _ in given]
    assert json.loads(samples[2]["json"])["frame"] == 2


def test_we_read_what_the_webdataset_library_writes(tmp_path):
    given = list(records(5))
    with wds.TarWriter(str(tmp_path / "theirs.tar")) as writer:
        for number, (key, image, _) in enumerate(given):
            writer.write({"__key__": key, "jpg": image, "json": {"n": number}, "cls": number, "txt": "a person"})
    source = Tars([tmp_path / "theirs.tar"])
    assert read_all(source) == [image for _, image, _ in given]
    assert source.name(3) == f"{tmp_path}/theirs.tar/{given[3][0]}.jpg"
    with open(tmp_path / "theirs.tar", "rb") as file:
        assert tars._scan(file) is not None  # its notes on every member do not send it the slow way


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_that_are_no_image_are_passed_over_and_names_may_be_long(tmp_path, kind):
    long = "/".join(["a folder" * 5, "another" * 5, "person" * 8])
    names = ["a.jpg", "b/b.JPG", f"{long}.png", f"{long}2.jpeg", "e.left.webp"]
    names += ["ä" * 60 + ".jpg", "l" * 140 + ".jpg"] if kind != tarfile.USTAR_FORMAT else []
    others = ["a.json", "a.txt", "._a.jpg", "b/.hidden.png", "c.cls", "jpg", "README"]
    members = {name: name.encode() * 99 for pair in zip(names, others, strict=False) for name in pair}
    shard = pack(tmp_path / "s.tar", members, kind)
    source = Tars([shard])
    assert [source.name(number) for number in range(len(source))] == [f"{shard}/{name}" for name in names]
    assert read_all(source) == [members[name] for name in names]


def test_folders_and_links_in_a_shard_are_passed_over(tmp_path):
    (tmp_path / "x.jpg").mkdir()
    (tmp_path / "x.jpg" / "a.jpg").write_bytes(b"a" * 1000)
    (tmp_path / "x.jpg" / "b.jpg").symlink_to("a.jpg")
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        archive.add(tmp_path / "x.jpg", "x.jpg")
    assert read_all(Tars([tmp_path / "s.tar"])) == [b"a" * 1000]


def test_shards_follow_one_another_and_are_no_larger_than_asked(tmp_path):
    given = list(records(20))
    given[7] = (given[7][0], JPEG + bytes(30_000), {})  # larger than a shard
    counts = write_tars(iter(given), tmp_path, max_bytes=9000)
    shards = sorted(tmp_path.iterdir())
    assert counts == {"images": 20, "shards": len(shards), "bytes": sum(shard.stat().st_size for shard in shards)}
    assert [shard.name for shard in shards] == [f"crops-{number:06d}.tar" for number in range(len(shards))]
    sizes = [len(Tars([shard])) for shard in shards]
    with_json = 512 + 1024 + 512 + 512  # of each crop but the large one: two headers, the image and its row, padded
    assert max(sizes) == 9000 // with_json
    assert 1 in sizes
    source = Tars(shards)
    assert len(source) == sum(sizes) == 20
    assert read_all(source) == [image for _, image, _ in given]


def test_a_writer_that_was_stopped_ends_with_the_same_bytes(tmp_path):
    def stopped_after(count):
        yield from records(count)
        raise KeyboardInterrupt

    write_tars(records(20), tmp_path / "whole", max_bytes=9000)
    for count in (0, 5, 12):
        with pytest.raises(KeyboardInterrupt):
            write_tars(stopped_after(count), tmp_path / "parts", max_bytes=9000)
        whole, part = contents(tmp_path / "whole"), contents(tmp_path / "parts")
        assert part == {name: whole[name] for name in part}  # finished shards only, and nothing else
    (tmp_path / "parts" / ".crops-000003.tar.x8_1k").write_bytes(b"what a killed writer leaves")
    write_tars(records(20), tmp_path / "parts", max_bytes=9000)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_shards_of_another_export_stay_what_they_were(tmp_path):
    write_tars(records(20), tmp_path, max_bytes=9000)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"crops-000000.tar is there already and holds something else"):
        write_tars(records(20, size=300), tmp_path, max_bytes=9000)
    with pytest.raises(InputError, match=r"also holds crops-00000\d.tar, which is not of these"):
        write_tars(records(3), tmp_path, max_bytes=9000)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("key", ["a.b", "", "folder/", "folder/a.b"])
def test_a_key_that_webdataset_would_cut_is_refused(tmp_path, key):
    with pytest.raises(InputError, match="cannot be the key"):
        write_tars([(key, JPEG, {})], tmp_path)


@pytest.mark.parametrize("kind", ["plain", "notes", "long names"])
def test_a_shard_cut_short_anywhere_is_refused(tmp_path, kind):
    names = [("long" * 40 if kind == "long names" else "p") + f"{number}.jpg" for number in range(3)]
    whole = pack(tmp_path / "whole.tar", {name: name.encode() * 100 for name in names})
    if kind == "notes":
        with wds.TarWriter(str(whole)) as writer:
            for name in names:
                writer.write({"__key__": name[:-4], "jpg": name.encode() * 100})
    content = whole.read_bytes()
    end = -(-len(content.rstrip(b"\0")) // 512) * 512  # after this come zeros alone
    shard = tmp_path / "cut.tar"
    for length in {*range(0, end + 512, 211), *range(0, end + 1, 512)}:
        shard.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"cut.tar is no whole tar file \(.*get another copy"):
            Tars([whole, shard])
    shard.write_bytes(content[: end + 512])
    assert len(Tars([whole, shard])) == 6


def test_what_is_no_tar_file_and_shards_without_images_are_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b" + bytes(3000))
    with pytest.raises(InputError, match="a.tar is no whole tar file"):
        Tars([tmp_path / "a.tar"])
    with pytest.raises(InputError, match="b.tar is no whole tar file"):
        Tars([tmp_path / "b.tar"])
    pack(tmp_path / "c.tar", {"a.json": b"{}"})
    with pytest.raises(InputError, match=r"no image was found in .*c.tar"):
        Tars([tmp_path / "c.tar"])
    with pytest.raises(InputError, match="no image was found in the list of shards"):
        Tars([])


def test_a_shard_that_became_shorter_is_named(tmp_path):
    write_tars(records(5), tmp_path)
    shard = tmp_path / "crops-000000.tar"
    source = Tars([shard])
    with open(shard, "r+b") as file:
        file.truncate(source.places[4, 1] + 3)
    assert source.read(3) == list(records(5))[3][1]
    with pytest.raises(InputError, match=r"crops-000000.tar is no whole tar file \(it ends \d+ bytes too early\)"):
        source.read(4)


def test_broken_shards_are_read_or_refused_and_nothing_else(tmp_path):
    chance, wholes = random.Random(3), []
    for number, kind in enumerate([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]):
        names = ["p.jpg", "q.png", "q.json", "ö" * 70 + ".jpg"][: 3 + number]
        wholes.append(pack(tmp_path / "whole.tar", dict.fromkeys(names, b"x" * 600), kind).read_bytes()[:8192])
    outcome = {"read": 0, "refused": 0}
    shard = tmp_path / "s.tar"
    for _ in range(500):
        content = bytearray(chance.choice(wholes))
        block = 512 * chance.randrange(12)
        header = content[block : block + 512]
        for _ in range(chance.choice([1, 2, 5])):
            at = chance.choice([chance.randrange(512), 124 + chance.randrange(12), 156])
            header[at] = chance.choice([chance.randrange(256), 0, 0x80, 0xFF, *b"-7xgLSK15"])
        if chance.random() < 0.5:  # the header's sum is right, so the change is believed
            header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 256)
        content[block : block + 512] = header
        shard.write_bytes(content)
        try:
            source = Tars([shard])
            for number in range(len(source)):
                assert source.name(number)
                assert len(source.read(number)) == source.places[number, 2]
            outcome["read"] += 1
        except InputError:
            outcome["refused"] += 1
    assert min(outcome.values()) > 50, outcome


def test_a_sparse_member_is_refused(tmp_path):
    shard = pack(tmp_path / "s.tar", {"a.jpg": b"x" * 512})
    content = bytearray(shard.read_bytes())
    content[156:157] = b"S"
    content[386:410] = b"00000000000\0" + b"00000001000\0"  # GNU's map: 512 bytes from 0
    content[148:156] = b"%06o\0 " % (sum(content[:512]) - sum(content[148:156]) + 256)
    shard.write_bytes(content)
    with pytest.raises(InputError, match="sparse"):
        Tars([shard])
