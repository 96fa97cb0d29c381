"""Tar shards in WebDataset's layout: for every crop KEY.jpg, and KEY.json with what is known of it.

Shards suit object storage, which serves few large files well and many small ones badly. Here they are read at random:
the headers say where each image lies, so an image is one read at a known place. Legend: N images.
"""

import filecmp
import io
import json
import math
import mmap
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lab.data.jpeg import image_suffix
from lab.data.readers.scan import is_image
from lab.errors import InputError
from lab.files import replacing

EXACT_TIME = re.compile(rb"\d+ mtime=[\d.]+\n")  # the note that WebDataset's writer puts before every member
BLOCK = tarfile.BLOCKSIZE  # 512 bytes: a header, and what the contents of a member are padded to
BROKEN = (OSError, tarfile.TarError, ValueError, OverflowError)  # what tarfile raises, also for absurd sizes
Member = tuple[str, bytes]  # name and contents
# bytes from the start of the shard to the header and to the contents, size of the contents
Place = tuple[int, int, int]


class Tars:
    """The images in tar shards, in the order of the shards given and within each as they lie there.

    Members that are no image (.json, .txt, .cls, hidden files, folders) are passed over. Opening reads the headers
    alone, 24 bytes are kept per image. Raises InputError for a shard that is broken or cut short, and if there is no
    image in any.
    """

    def __init__(self, shards: Sequence[str | Path]):
        self.shards = [Path(shard) for shard in shards]
        found = [_places(shard) for shard in tqdm(self.shards, unit="shard", desc="reading tar headers", delay=3)]
        self.ends = np.cumsum([len(places) for places in found])
        if not found or not self.ends[-1]:
            named = ", ".join(map(str, self.shards[:3])) or "the list of shards"
            raise InputError(f"no image was found in {named}; expected tar files with members such as KEY.jpg")
        self.places = np.concatenate(found)  # (N, 3) int64, see Place

    def __len__(self) -> int:
        return len(self.places)

    def name(self, number: int) -> str:
        """The shard's path and the member's name in it, which is read again: names are for messages only."""
        shard = self._shard(number)
        try:
            with open(shard, "rb") as file:
                file.seek(self.places[number, 0])
                with tarfile.open(fileobj=file, mode="r:") as archive:
                    member = archive.next()
        except BROKEN as error:
            raise _broken(shard, str(error)) from error
        return f"{shard}/{member.name if member else number}"

    def read(self, number: int) -> bytes:
        """The bytes of an image. Raises InputError if the shard has become shorter since it was opened."""
        shard, (_, start, size) = self._shard(number), self.places[number].tolist()
        # opened each time: 3 microseconds on a local disk, and nothing to share or to run out of between processes
        file = os.open(shard, os.O_RDONLY)
        try:
            record = os.pread(file, size, start)
        finally:
            os.close(file)
        if len(record) != size:
            raise _broken(shard, f"it ends {size - len(record)} bytes too early")
        return record

    def _shard(self, number: int) -> Path:
        return self.shards[int(np.searchsorted(self.ends, number, side="right"))]


def write_tars(
    records: Iterable[tuple[str, bytes, dict]], folder: str | Path, max_bytes: int = 500_000_000
) -> dict[str, int]:
    """Write (key, bytes of the image file, row of the index) as crops-000000.tar, crops-000001.tar, … of `max_bytes`.

    The same records give the same files, and each appears when it is whole: after a stop, call it again. A shard is
    larger than `max_bytes` only if one crop is. Returns how many images, shards and bytes there are. Raises InputError
    for a key with a dot, which WebDataset takes for an ending, and if the folder holds other shards already.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".crops-*.tar.*"):  # of a writer that was killed
        leftover.unlink()
    samples = _samples(records)
    sample = next(samples, None)
    written, images = [], 0
    while sample is not None:
        shard = folder / f"crops-{len(written):06d}.tar"
        with replacing(shard) as temporary:
            with tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT, encoding="utf-8") as archive:
                while sample is not None and (not archive.offset or archive.offset + _room(sample) <= max_bytes):
                    for name, contents in sample:
                        member = tarfile.TarInfo(name)  # mode 0644, time and owner 0
                        member.size = len(contents)
                        archive.addfile(member, io.BytesIO(contents))
                    images += 1
                    sample = next(samples, None)
            if shard.exists() and not filecmp.cmp(temporary, shard, shallow=False):
                raise InputError(f"{shard} is there already and holds something else; give an empty folder")
        written.append(shard)
    if others := sorted(set(folder.glob("*.tar")) - set(written)):
        raise InputError(
            f"{folder} also holds {others[0].name}, which is not of these {len(written)} shard(s) and would be read with "
            "them; move it elsewhere"
        )
    return {"images": images, "shards": len(written), "bytes": sum(shard.stat().st_size for shard in written)}


def _samples(records: Iterable[tuple[str, bytes, dict]]) -> Iterator[list[Member]]:
    """The two members of each crop."""
    for key, image, row in records:
        if "." in os.path.basename(key) or not os.path.basename(key):
            raise InputError(f"'{key}' cannot be the key of a crop in a tar shard; expected a name without a dot")
        values = {name: _plain(value) for name, value in row.items()}
        text = json.dumps(values, ensure_ascii=False, allow_nan=False)
        yield [(key + image_suffix(image), image), (f"{key}.json", text.encode())]


def _plain(value):
    """A value of a table as JSON has it; what is not known (NaN) becomes null."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _room(sample: list[Member]) -> int:
    """Bytes that a sample takes in a shard, its headers included."""
    return sum(BLOCK + -(-len(contents) // BLOCK) * BLOCK for _, contents in sample)


def _places(shard: Path) -> np.ndarray:
    """Where the images of a shard lie: (n, 3) int64, see `Place`. Raises InputError for a shard that is broken."""
    try:
        with open(shard, "rb") as file:
            places = _scan(file) if os.fstat(file.fileno()).st_size else None
        if places is None:
            places = _scan_any(shard)
    except BROKEN as error:
        raise _broken(shard, str(error)) from error
    return np.array(places, dtype=np.int64).reshape(-1, 3)


def _scan(file: io.BufferedReader) -> list[Place] | None:
    """Where images lie, from plain headers, six times as fast as tarfile; None if any member is out of the ordinary."""
    places, start = [], 0
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as shard:
        while (header := shard[start : start + BLOCK]) != bytes(BLOCK):
            contents = start + BLOCK
            read = _read_header(header)
            if read is None or contents + read[1] > len(shard):
                return None
            name, size, kind = read
            if kind == b"x":
                if not EXACT_TIME.fullmatch(shard[contents : contents + size]):
                    return None
            elif is_image(os.path.basename(name)):
                places.append((start, contents, size))
            start = contents + -(-size // BLOCK) * BLOCK
    return places


def _read_header(header: bytes) -> tuple[str, int, bytes] | None:
    """The last 100 bytes of a member's name, its size and its kind: a file, or a note (x) on the next member."""
    kind = header[156:157]
    try:
        size, checksum = (int(field.rstrip(b" \0"), 8) for field in (header[124:136], header[148:156]))
    except ValueError:
        return None
    summed = sum(header) - sum(header[148:156]) + 8 * ord(" ")  # spaces stand in the place of the sum itself
    if header[257:262] != b"ustar" or kind not in (b"0", b"\0", b"x") or summed != checksum or size < 0:
        return None
    return header[:100].rstrip(b"\0").decode("utf-8", "replace"), size, kind


def _scan_any(shard: Path) -> list[Place]:
    """Where images lie, by tarfile, which knows long names and everything else that a tar file may hold."""
    with tarfile.open(shard, "r:") as archive:
        places = []
        for member in archive:
            if member.issparse():
                raise tarfile.ReadError(f"{member.name} is a sparse file; pack the shard without them")
            if member.isreg() and is_image(os.path.basename(member.name)):
                places.append((member.offset, member.offset_data, member.size))
        # tarfile takes a header that it cannot read for the end
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(BLOCK) != bytes(BLOCK):
            raise tarfile.ReadError(f"it breaks off after {len(archive.getmembers())} members")
    return places


def _broken(shard: Path, reason: str) -> InputError:
    return InputError(f"{shard} is no whole tar file ({reason}); get another copy, or write it again")
