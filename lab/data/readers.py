"""How data sets lie on disk: one reader per layout, each says what it skipped and explains a wrong layout.

A reader returns a ReidDataset or raises InputError with one sentence that shows the expected tree; it never returns an
empty split.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from lab.data.splits import ReidDataset, Split
from lab.errors import InputError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
NAME = re.compile(r"^(-?\d+)_c(\d+)")  # 0002_c1s1_000451_03.jpg, and MSMT17's two-digit cameras: 0000_c12_0036.jpg
JUNK = -1
MARKET_TREE = "bounding_box_train/, query/ and bounding_box_test/ with names such as 0002_c1s1_000451_03.jpg"
PUBLISHED_COUNTS = {  # images after junk was dropped; reference: the data set's own description
    "market1501": {"train": 12936, "query": 3368, "gallery": 15913},
}
CSV_COLUMNS = ("path", "pid", "camid", "split")


def load(name: str, root: str | Path) -> ReidDataset:
    """Read the data set `name` ("market1501", "folder" or "synthetic") at `root`.

    `root` is the folder of the images; for "folder" it may also be the CSV file itself. Raises InputError.
    """
    readers = {"market1501": market1501, "folder": folder, "synthetic": synthetic}
    if name not in readers:
        raise InputError(f"there is no data set '{name}'; choose among {', '.join(readers)}")
    root = Path(os.path.abspath(root))
    if not root.exists():
        raise InputError(f"there is no folder {root}; expected the data set '{name}' there: give its place with --root")
    return readers[name](root)


def market1501(root: Path, name: str = "market1501") -> ReidDataset:
    """Market-1501's layout: pid -1 is junk and dropped, pid 0 is a distractor and stays in the gallery."""
    parts = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
    absent = [part for part in parts.values() if not (root / part).is_dir()]
    if absent:
        raise InputError(_explain_market(root, absent))
    notes: list[str] = []
    splits = {split: _market_split(root / part, notes) for split, part in parts.items()}
    return ReidDataset(name, **splits, notes=tuple(notes))


def synthetic(root: Path) -> ReidDataset:
    """The built-in synthetic people, written by `lab data synth` in Market-1501's layout."""
    if not (root / "synthetic.json").is_file():
        raise InputError(
            f"{root} has no synthetic.json, so it is not a folder of `lab data synth`; make one with "
            "`lab data synth --out DIR`, or read it with --dataset market1501"
        )
    return market1501(root, name="synthetic")


def folder(root: Path) -> ReidDataset:
    """Any images listed in a CSV `path,pid,camid,split` with split train, query or gallery; paths are relative to it."""
    file = root if root.is_file() else _only_csv(root)
    try:
        table = pd.read_csv(file, dtype={"path": str, "split": str})
    except (ValueError, OSError) as error:
        raise InputError(f"{file} cannot be read as CSV ({error}); expected columns {','.join(CSV_COLUMNS)}") from error
    absent = [column for column in CSV_COLUMNS if column not in table.columns]
    if absent:
        raise InputError(
            f"{file} has columns {','.join(map(str, table.columns))} and no {', '.join(absent)}; expected "
            f"{','.join(CSV_COLUMNS)}: add what is missing"
        )
    _check_csv_values(file, table)
    notes: list[str] = []
    splits = {
        name: _csv_split(file, table[table["split"] == name], name, notes) for name in ("train", "query", "gallery")
    }
    return ReidDataset("folder", **splits, notes=tuple(notes))


def list_images(folder: str | Path) -> list[str]:
    """Paths of all images below `folder`, sorted by name: what pre-training reads. Raises InputError if there are none."""
    folder = Path(os.path.abspath(folder))
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; expected a folder of images: give another one")
    found = [
        str(path) for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    ]
    if not found:
        raise InputError(f"{folder} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}); give a folder that does")
    return found


def count_report(dataset: ReidDataset) -> pd.DataFrame | None:
    """Our image counts beside the published ones, or None for a data set that has none."""
    published = PUBLISHED_COUNTS.get(dataset.name)
    if published is None:
        return None
    rows = [(split, len(getattr(dataset, split)), count) for split, count in published.items()]
    return pd.DataFrame(rows, columns=["split", "found", "published"]).set_index("split")


def queries_without_match(dataset: ReidDataset) -> np.ndarray:
    """Positions of the queries whose person no other camera of the gallery saw: evaluation leaves them out."""
    seen = set(zip(dataset.gallery.pid.tolist(), dataset.gallery.camid.tolist(), strict=True))
    cameras: dict[int, set[int]] = {}
    for pid, camid in seen:
        cameras.setdefault(pid, set()).add(camid)
    pairs = zip(dataset.query.pid.tolist(), dataset.query.camid.tolist(), strict=True)
    return np.array(
        [i for i, (pid, camid) in enumerate(pairs) if not cameras.get(pid, set()) - {camid}], dtype=np.int64
    )


def _market_split(part: Path, notes: list[str]) -> Split:
    names = sorted(entry.name for entry in os.scandir(part) if not entry.name.startswith("."))
    images = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise InputError(f"{part} holds no image; expected names such as 0002_c1s1_000451_03.jpg: check the data set")
    matches = {name: NAME.match(name) for name in images}
    nameless = [name for name, match in matches.items() if match is None]
    if nameless:
        raise InputError(
            f"{len(nameless)} image(s) in {part} carry no pid and camera in their name (first: {nameless[0]}); expected "
            "names such as 0002_c1s1_000451_03.jpg: rename or remove them, or list them in a CSV for --dataset folder"
        )
    pid = np.array([int(match[1]) for match in matches.values()], dtype=np.int64)
    camid = np.array([int(match[2]) for match in matches.values()], dtype=np.int64)
    junk = pid == JUNK
    if other := len(names) - len(images):
        notes.append(f"{part.name}: {other} file(s) that are no image skipped")
    if junk.any():
        notes.append(f"{part.name}: {junk.sum()} junk image(s) (pid -1) dropped, as the protocol wants")
    if (distractors := int((pid == 0).sum())) and part.name == "bounding_box_test":
        notes.append(f"{part.name}: {distractors} distractor(s) (pid 0) kept as negatives")
    split = Split(np.array([str(part / name) for name in images]), pid, camid).take(~junk)
    if not len(split):
        raise InputError(f"{part} holds only junk images (pid -1); expected people with a pid: check the data set")
    return split


def _explain_market(root: Path, absent: list[str]) -> str:
    if root.is_file():
        return f"{root} is a file; expected a folder with {MARKET_TREE}"
    inside = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in os.scandir(root))
    for entry in inside:
        if all((root / entry / part).is_dir() for part in ("bounding_box_train", "query", "bounding_box_test")):
            return f"{root} has no {', '.join(absent)}, its folder {entry} has: give --root {root / entry}"
    found = ", ".join(inside[:5]) + (", …" if len(inside) > 5 else "") if inside else "nothing"
    return f"{root} has no {', '.join(absent)} (it holds {found}); expected {MARKET_TREE}"


def _only_csv(root: Path) -> Path:
    tables = sorted(root.glob("*.csv"))
    if len(tables) != 1:
        found = ", ".join(table.name for table in tables) or "none"
        raise InputError(f"{root} holds {len(tables)} CSV files ({found}); expected one: give it as --root FILE.csv")
    return tables[0]


def _check_csv_values(file: Path, table: pd.DataFrame) -> None:
    for column in ("pid", "camid"):
        numbers = pd.to_numeric(table[column], errors="coerce")
        wrong = numbers.isna() | (numbers % 1 != 0)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise InputError(
                f"{file} line {row + 2} has {column} '{table[column].iloc[row]}'; expected a whole number: mend the line"
            )
    strange = sorted(set(table["split"].dropna()) - {"train", "query", "gallery"})
    if strange or table["split"].isna().any():
        found = f"'{strange[0]}'" if strange else "an empty field"
        raise InputError(f"{file} has {found} in column split; expected train, query or gallery: mend the column")
    if table["path"].isna().any():
        row = int(np.flatnonzero(table["path"].isna())[0])
        raise InputError(f"{file} line {row + 2} has no path; expected an image path: mend the line")


def _csv_split(file: Path, table: pd.DataFrame, name: str, notes: list[str]) -> Split:
    pid = pd.to_numeric(table["pid"]).to_numpy(dtype=np.int64)
    junk = pid == JUNK
    if junk.any():
        notes.append(f"{name}: {junk.sum()} junk image(s) (pid -1) dropped, as the protocol wants")
    if not (~junk).any():
        raise InputError(f"{file} lists no image for {name}; expected lines with split {name}: add them")
    paths = [os.path.abspath(file.parent / path) for path in table["path"]]
    _refuse_absent(file, paths)
    return Split(np.array(paths), pid, pd.to_numeric(table["camid"]).to_numpy(dtype=np.int64)).take(~junk)


def _refuse_absent(file: Path, paths: Iterable[str]) -> None:
    absent = [path for path in paths if not os.path.isfile(path)]
    if absent:
        folders = Counter(os.path.dirname(path) for path in absent)
        raise InputError(
            f"{file} lists {len(absent)} image(s) that are not there (first: {absent[0]}, most in "
            f"{folders.most_common(1)[0][0]}); paths are relative to the CSV: mend them"
        )
