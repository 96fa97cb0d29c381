"""The weights that LUPerson's authors released: where they are, under which terms, and a download that checks itself.

The files lie on Google Drive, which gdown fetches (`pip install 'gdown>=6'`). The authors publish no checksums, so the
first download records one, and every later use is compared with it.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from lab.errors import InputError
from lab.runs import replacing, write_json

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
    kind: str  # "trunk" or "mgn"
    depth: int = 50
    dataset: str | None = None  # that an MGN was fine-tuned on

    @property
    def url(self) -> str:
        return f"https://drive.google.com/uc?id={self.drive_id}"


RELEASED = {
    "lup-r50": Released("1pFyAdt9BOZCtzaLiE-W3CsX_kgWABKK6", "the ResNet-50 trunk", "trunk", 50),
    "lup-r101": Released("1Ckn0iVtx-IhGQackRECoMR7IVVr4FC5h", "the ResNet-101 trunk", "trunk", 101),
    "lup-r152": Released("1nGGatER6--ZTHdcTryhWEqKRKYU-Mrl_", "the ResNet-152 trunk", "trunk", 152),
    "lup-mgn-market1501": Released("1AlXgY5bI0Lj7HClfNsl3RR8uPi2nq6Zn", "MGN of Market-1501", "mgn", 50, "market1501"),
    "lup-mgn-dukemtmc": Released("1leUezGnwFu8LKG2N8Ifd2Ii9utlJU5g4", "MGN of DukeMTMC-reID", "mgn", 50, "dukemtmc"),
    "lup-mgn-msmt17": Released("1bV27gwAsX8L3a3yhLoxAJueqrGmQTodV", "MGN of MSMT17", "mgn", 50, "msmt17"),
    "lup-mgn-cuhk03": Released("1BQ-zeEgZPud77OtliM9md8Z2lTz11HNh", "MGN of CUHK03 labeled", "mgn", 50, "cuhk03"),
}


def weights_folder() -> Path:
    """Where released files are kept: $LAB_WEIGHTS, else ~/.cache/luperson-lab."""
    return Path(os.environ.get("LAB_WEIGHTS") or Path.home() / ".cache" / "luperson-lab")


def fetch(name: str, folder: Path | None = None) -> Path:
    """The released file `name` of RELEASED, downloaded if it is not in `folder` yet; prints the terms when it is.

    The first use of a file records its SHA-256 in checksums.json beside it. Raises InputError for an unknown name, a
    download that fails, and a file whose checksum is no longer the recorded one.
    """
    if name not in RELEASED:
        raise InputError(f"there is no released file '{name}'; choose one of {', '.join(RELEASED)}")
    folder = weights_folder() if folder is None else Path(folder)
    file = folder / f"{name}.pth"
    if not file.is_file():
        _download(name, file)
    _compare_checksum(file)
    return file


def _download(name: str, file: Path) -> None:
    release = RELEASED[name]
    by_hand = f"open {release.url} in a browser and save the file as {file}"
    try:
        import gdown
    except ImportError as error:
        raise InputError(
            f"{file} is not there, and downloading it needs gdown: pip install 'gdown>=6', or {by_hand}"
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


def _compare_checksum(file: Path) -> None:
    with open(file, "rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    record = file.parent / CHECKSUMS
    known = json.loads(record.read_text()) if record.is_file() else {}
    expected = known.setdefault(file.name, found)
    if expected != found:
        raise InputError(
            f"{file} has SHA-256 {found[:12]}… and {expected[:12]}… was recorded when it was first used; it was changed or "
            f"damaged: remove it (and its line in {record} if the change is meant)"
        )
    if not record.is_file() or file.name not in json.loads(record.read_text()):
        write_json(record, known)
