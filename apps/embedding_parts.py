"""What the page of embedding maps is made of: stored features, points that are computed once, and crops that were chosen."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st
from loaders import Stamp, data_root, read_features, stamp
from parts import offer_table, show_picture

from lab.errors import InputError
from lab.evaluate.map_points import MapPoints, choose_crops, has_distractors, map_file, match_queries
from lab.runs import EvalResult, Features, Run
from lab.show.embedding import FEWEST, embedding_points
from lab.show.figures import contact_sheet, to_png
from lab.show.images import read_picture

PARTS = {"queries and gallery": "both", "queries": "query", "gallery": "gallery"}
SHOWN = 40  # crops of a selection
COLUMNS = 10


@dataclass(frozen=True, eq=False)
class Crops:
    """The stored features of a run for one data set: `query`, `gallery`, and the queries' numbers in the result."""

    run: Run
    dataset: str
    query: Features
    gallery: Features
    numbers: np.ndarray
    distractors: bool

    def parts(self, part: str) -> list[Features]:
        """What a map of "query", "gallery" or "both" shows, queries first."""
        return [self.query] * (part != "gallery") + [self.gallery] * (part != "query")

    def choose(self, part: str, size: int, seed: int) -> np.ndarray:
        """Numbers of the crops on a map of at most `size`, counted through its parts."""
        return choose_crops(np.concatenate([one.pid for one in self.parts(part)]), size, seed, self.distractors)


def find_crops(run: Run, evaluation: str, result: EvalResult) -> tuple[Crops | None, str]:
    """The features behind an evaluation, or None and what is missing; re-ranked and expanded ones share the plain ones."""
    plain_name = evaluation.removesuffix("-rerank")
    names = [plain_name, plain_name.removesuffix("-aqe")]
    if isinstance(result.settings, dict) and isinstance(result.settings.get("dataset"), str):
        said = result.settings["dataset"]  # an evaluation that was set aside has a longer name
        names += [said] if said and Path(said).name == said else []
    folder = run.folder / "features"
    dataset = next((name for name in names if (folder / f"{name}-query.npz").is_file()), names[1])
    found = {part: read_features(run, dataset, part) for part in ("query", "gallery")}
    problem = next((problem for features, problem in found.values() if features is None), "")
    if problem:
        return None, problem
    query, gallery = found["query"][0], found["gallery"][0]
    if query.values.shape[1] != gallery.values.shape[1]:
        sizes = f"{query.values.shape[1]} and {gallery.values.shape[1]}"
        return None, f"{run.name}: features of queries and gallery have {sizes} numbers; evaluate the run again."
    numbers = match_queries(query, result)
    return Crops(run, dataset, query, gallery, numbers, has_distractors(query.pid, gallery.pid)), ""


def map_points(crops: Crops, part: str, method: str, size: int, seed: int) -> tuple[MapPoints, str]:
    """Where the crops lie, from the run folder or computed now and kept there; and a sentence if it could not be kept.

    Raises InputError for features that make no map.
    """
    files = stamp(*(crops.run.folder / "features" / f"{crops.dataset}-{name}.npz" for name in ("query", "gallery")))
    return _map_points(crops, str(crops.run.folder), crops.dataset, part, method, size, seed, files)


@st.cache_resource(max_entries=32, show_spinner="Laying out the map …")
def _map_points(
    _crops: Crops, folder: str, dataset: str, part: str, method: str, size: int, seed: int, files: Stamp
) -> tuple[MapPoints, str]:
    row = _crops.choose(part, size, seed)
    file = map_file(_crops.run, dataset, part, method.lower(), size, seed)
    found = MapPoints.load(file, str(files), row)
    if found is not None:
        return found, ""
    if len(row) < FEWEST:
        raise InputError(f"there are {len(row)} crops here; a map needs at least {FEWEST}: choose other crops")
    points, share = embedding_points(_rows(_crops.parts(part), row), method, seed)
    found = MapPoints(row, points, share)
    try:
        found.save(file, str(files))
    except (OSError, InputError) as error:
        return found, f"The map is not kept in the run folder, which cannot be written ({error})."
    return found, ""


def _rows(parts: list[Features], row: np.ndarray) -> np.ndarray:
    """Values of the crops `row`, counted through the parts: only these are read."""
    found, first = [], 0
    for part in parts:
        inside = row[(row >= first) & (row < first + len(part.pid))] - first
        found.append(np.asarray(part.values[inside], dtype=np.float32))
        first += len(part.pid)
    return np.concatenate(found)


def spell(numbers: list[int]) -> str:
    """Numbers in short: 3, 7-9."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)


def read_numbers(text: str, count: int) -> list[int]:
    """What `spell` wrote, without what is not below `count`; other text counts as nothing."""
    found: set[int] = set()
    for first, last in re.findall(r"(\d{1,9})(?:\s*-\s*(\d{1,9}))?", text):
        found.update(range(int(first), min(int(last or first), count - 1) + 1))
    return sorted(number for number in found if number < count)


def show_crops(table: pd.DataFrame, stem: str) -> None:
    """The chosen rows of a `map_table` as a sheet of crops and as a table."""
    shown = table[:SHOWN]
    titles = tuple(f"pid {pid}\ncam {camid}{' query' * (part == 'query')}" for pid, camid, part in _labels(shown))
    picture = _sheet_png(tuple(shown["file"].tolist()), titles, data_root())
    more = f"; the first {SHOWN} are shown, the table has all" if len(table) > SHOWN else ""
    people = table["pid"].nunique()
    counts = _many(len(table), "crop"), _many(people, "person", "people"), _many(table["camid"].nunique(), "camera")
    st.caption(f"{counts[0]} of {counts[1]} under {counts[2]}{more}.")
    alt = f"Chosen crops: {', '.join(title.replace(chr(10), ' ') for title in titles[:5])}"
    show_picture(picture, f"{stem}-crops", alt, "content")
    columns = {"AP": st.column_config.NumberColumn("AP (%)", format="%.1f")}
    columns |= {"x": st.column_config.NumberColumn(format="%.3f"), "y": st.column_config.NumberColumn(format="%.3f")}
    st.dataframe(table.drop(columns="query"), column_config=columns, height=min(300, 38 + 35 * len(table)))
    offer_table(table, f"{stem}-chosen", "Chosen crops as CSV", index=True)


def _many(count: int, one: str, several: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _labels(table: pd.DataFrame) -> list[tuple]:
    return list(table[["pid", "camid", "part"]].itertuples(index=False))


@st.cache_data(max_entries=64, show_spinner="Drawing the crops …")
def _sheet_png(paths: tuple[str, ...], titles: tuple[str, ...], root: str | None) -> bytes:
    return to_png(contact_sheet([read_picture(path, root) for path in paths], titles, COLUMNS))
