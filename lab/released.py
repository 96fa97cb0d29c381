"""The weights that LUPerson's authors released: where they are, under which terms, and a download that checks itself.

The files lie on Google Drive, which gdown fetches (`pip install 'gdown>=6'`). The authors publish no checksums, so the
first use of a file records one, after a look at what is in it, and every later use is compared with it.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lab.errors import InputError
from lab.files import replacing, write_json

TERMS = (
    "Terms: LUPerson's images and weights are released by their authors (github.com/DengpanFu/LUPerson) for research "
    "only; commercial use is forbidden."
)
CHECKSUMS = "checksums.json"


@dataclass(frozen=True)
class Released:
    """One released file: its Google Drive id and what is in it."""

    drive_id: str
    what: str
    kind: Literal["trunk", "mgn"]
    depth: int = 50
    identities: int | None = None  # that an MGN tells apart

    @property
    def url(self) -> str:
        return f"https://drive.google.com/uc?id={self.drive_id}"


RELEASED = {
    "lup-r50": Released("1pFyAdt9BOZCtzaLiE-W3CsX_kgWABKK6", "the ResNet-50 trunk", "trunk", 50),
    "lup-r101": Released("1Ckn0iVtx-IhGQackRECoMR7IVVr4FC5h", "the ResNet-101 trunk", "trunk", 101),
    "lup-r152": Released("1nGGatER6--ZTHdcTryhWEqKRKYU-Mrl_", "the ResNet-152 trunk", "trunk", 152),
    "lup-mgn-market1501": Released("1AlXgY5bI0Lj7HClfNsl3RR8uPi2nq6Zn", "MGN of Market-1501 (751)", "mgn", 50, 751),
    "lup-mgn-dukemtmc": Released("1leUezGnwFu8LKG2N8Ifd2Ii9utlJU5g4", "MGN of DukeMTMC-reID (702)", "mgn", 50, 702),
    "lup-mgn-msmt17": Released("1bV27gwAsX8L3a3yhLoxAJueqrGmQTodV", "MGN of MSMT17 (1,041)", "mgn", 50, 1041),
    "lup-mgn-cuhk03": Released("1BQ-zeEgZPud77OtliM9md8Z2lTz11HNh", "MGN of CUHK03 labeled (767)", "mgn", 50, 767),
}


def weights_folder() -> Path:
    """Where released files are kept: $LAB_WEIGHTS, else ~/.cache/luperson-lab."""
    return Path(os.environ.get("LAB_WEIGHTS") or Path.home() / ".cache" / "luperson-lab")


def fetch(name: str, folder: Path | None, check: Callable[[Path], None]) -> Path:
    """The released file `name` of RELEASED, downloaded if it is not in `folder` yet; prints the terms when it is.

    A file without a recorded checksum goes through `check`, which raises InputError for a wrong one; then its SHA-256 is
    recorded in checksums.json beside it. Raises InputError for an unknown name, a download that fails, and a file that
    is no longer the recorded one.
    """
    if name not in RELEASED:
        raise InputError(f"there is no released file '{name}'; choose one of {', '.join(RELEASED)}")
    folder = weights_folder() if folder is None else Path(folder)
    file = folder / f"{name}.pth"
    if not file.is_file():
        _download(name, file)
    _compare_checksum(file, check)
    return file


def _download(name: str, file: Path) -> None:
    release = RELEASED[name]
    by_hand = f"open {release.url} in a browser and save the file as {file}"
    try:
        import gdown
    except ImportError as error:
        raise InputError(
            f"{file} is not there and downloading needs gdown: pip install 'gdown>=6', or {by_hand}"
        ) from error
    print(f"{name}: {release.what}, from {release.url}\n{TERMS}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            if gdown.download(id=release.drive_id, output=str(temporary)) is None:
                raise OSError("gdown gave no file")
            if temporary.open("rb").read(1) in (b"", b"<"):
                raise OSError("a web page came in place of the file")
    except (OSError, gdown.exceptions.DownloadError) as error:  # those of requests are OSErrors
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{name} could not be downloaded ({reason}); {by_hand}") from error


def _compare_checksum(file: Path, check: Callable[[Path], None]) -> None:
    with open(file, "rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    record = file.parent / CHECKSUMS
    known = _read_record(record)
    expected = known.get(file.name)
    if expected is None:
        check(file)
        try:
            write_json(record, known | {file.name: found})
        except OSError as error:  # a folder that others share; the file itself is right
            print(f"note: the checksum of {file} could not be recorded ({error.strerror})")
    elif expected != found:
        raise InputError(
            f"{file} has SHA-256 {found[:12]}… and {expected[:12]}… was recorded when it was first used; it was changed or "
            f"damaged: get the file again, or remove its line from {record} if the change is meant"
        )


def _read_record(record: Path) -> dict[str, str]:
    if not record.exists():
        return {}
    try:
        known = json.loads(record.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{record} cannot be read ({error}); remove it: it will be written anew") from error
    if not isinstance(known, dict):
        raise InputError(f"{record} holds a {type(known).__name__}; expected file names with checksums: remove it")
    return known
