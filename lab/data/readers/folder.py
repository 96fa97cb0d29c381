"""Your own images: a CSV that says who is on each, or two sub-folders, one per camera (`two_folders`)."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from lab.data.readers.market import JUNK
from lab.data.readers.scan import first, is_image
from lab.data.readers.two_folders import two_folders
from lab.data.splits import ReidDataset, Split
from lab.errors import InputError

CSV_COLUMNS = ("path", "pid", "camid", "split")


def folder(root: Path, seed: int = 0) -> ReidDataset:
    """Any images: a CSV `path,pid,camid,split` (the file, or one in the folder), or two folders, one per camera.

    split is train, query or gallery, paths are relative to the CSV; `seed` draws the halves of a two-folder set.
    """
    if root.is_file():
        return _csv(root)
    tables = sorted(root.glob("*.csv"))
    if not tables:
        return two_folders(root, seed)
    if len(tables) > 1:
        found = ", ".join(table.name for table in tables)
        raise InputError(f"{root} holds {len(tables)} CSV files ({found}); expected one: give it as --root FILE.csv")
    return _csv(tables[0])


def _csv(file: Path) -> ReidDataset:
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
    _check_values(file, table)
    notes: list[str] = []
    splits = {name: _split(file, table[table["split"] == name], name, notes) for name in ("train", "query", "gallery")}
    _name_shared_people(file, splits, notes)
    _count_unlisted(file, table, notes)
    return ReidDataset("folder", **splits, notes=tuple(notes))


def _check_values(file: Path, table: pd.DataFrame) -> None:
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


def _split(file: Path, table: pd.DataFrame, name: str, notes: list[str]) -> Split:
    pid = pd.to_numeric(table["pid"]).to_numpy(dtype=np.int64)
    junk = pid == JUNK
    if junk.any():
        notes.append(f"{name}: {junk.sum()} junk image(s) (pid -1) dropped, as the protocol wants")
    if not (~junk).any():
        raise InputError(f"{file} lists no image for {name}; expected lines with split {name}: add them")
    paths = _absolute(file, table)
    _refuse_absent(file, paths)
    return Split(np.array(paths), pid, pd.to_numeric(table["camid"]).to_numpy(dtype=np.int64)).take(~junk)


def _absolute(file: Path, table: pd.DataFrame) -> list[str]:
    return [os.path.abspath(file.parent / path) for path in table["path"]]


def _refuse_absent(file: Path, paths: list[str]) -> None:
    absent = [path for path in paths if not os.path.isfile(path)]
    if absent:
        folders = Counter(os.path.dirname(path) for path in absent)
        raise InputError(
            f"{file} lists {len(absent)} image(s) that are not there (first: {absent[0]}, most in "
            f"{folders.most_common(1)[0][0]}); paths are relative to the CSV: mend them"
        )


def _name_shared_people(file: Path, splits: dict[str, Split], notes: list[str]) -> None:
    """A note on people who train and are searched for: the test would measure memory, not re-identification."""
    shared = sorted(set(splits["train"].pid.tolist()) & set(splits["query"].pid.tolist()))
    if shared:
        notes.append(
            f"{file.name}: {len(shared)} person(s) are in train and in query (pid {first(map(str, shared))}): a test on them "
            "is too good; train on other people"
        )


def _count_unlisted(file: Path, table: pd.DataFrame, notes: list[str]) -> None:
    """A note on images that lie beside listed ones and are on no line: added to the folder, forgotten in the CSV."""
    listed = set(_absolute(file, table))
    there = {
        os.path.join(place, name) for place in {os.path.dirname(path) for path in listed} for name in os.listdir(place)
    }
    if more := [os.path.basename(path) for path in there - listed if is_image(os.path.basename(path))]:
        notes.append(
            f"{file.name}: {len(more)} image(s) beside the listed ones are on no line and skipped ({first(more)})"
        )
