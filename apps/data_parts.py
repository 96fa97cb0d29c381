"""What the page of data is made of: where data may lie, reading it once, and drawing samples of it."""

from collections.abc import Iterable
from pathlib import Path

import streamlit as st
from loaders import Stamp, data_root

from lab.data.splits import ReidDataset
from lab.runs import EvalResult, Run
from lab.show.data import drawn_words, parts_of, people_sheet, person_sheet
from lab.show.figures import card_sheet, to_png
from lab.show.images import find_image, read_picture

DEMO = Path("data") / "unlabeled"  # beside the folder of runs, as `lab demo` leaves it
PICTURES = 24


def find_stores(folder: Path, runs: Iterable[Run]) -> list[str]:
    """Where the pre-training runs say that their images lie, of those places that are there."""
    said = []
    for run in runs:
        data = run.config.get("data")
        if run.config.get("stage") == "pretrain" and isinstance(data, dict) and isinstance(data.get("folders"), list):
            said += [place for place in data["folders"] if isinstance(place, str) and place]
    said.append(str(folder.parent / DEMO))
    return [place for place in dict.fromkeys(said) if _is_there(Path(place))]


def find_training(run: Run, result: EvalResult, dataset: str) -> tuple[str, Path | None]:
    """The data set a run was fine-tuned or evaluated on, and its folder: as the run says, LAB_DATA, or above its queries."""
    data = run.config.get("data")
    data = data if isinstance(data, dict) else {}
    said = result.settings.get("dataset") if isinstance(result.settings, dict) else None
    name = next((name for name in (data.get("dataset"), said) if isinstance(name, str)), dataset)
    places = [data.get("root"), data_root()]
    first = find_image(str(result.path[0]), data_root()) if len(result.path) else None
    places.append(first and first.parent.parent)
    return name, next((Path(place) for place in places if place and _is_there(Path(place))), None)


def load_training(name: str, root: Path) -> ReidDataset:
    """The data set with its training part. Raises InputError and whatever else a broken folder leads to."""
    return _load_training(name, str(root), stamp_of_place(root))


def look_at(place: str, seed: int):
    """The lab.data.overview.Overview of a store or folder; the same errors."""
    return _look_at(place, seed, stamp_of_place(Path(place)))


def sample_png(place: str, seed: int) -> bytes:
    """The pictures of `look_at` with what is known of each, as one PNG."""
    return _sample_png(place, seed, stamp_of_place(Path(place)))


def stamp_of_place(place: Path) -> Stamp:
    """Changes when a store is written anew, or when something is added to a folder or taken out of it."""
    files = [place / name for name in ("", "store.json", "index.parquet", "data.mdb", "lmdb/data.mdb")]
    found = [(file, file.stat()) for file in files if file.exists()]
    return tuple((str(file), status.st_size, status.st_mtime_ns) for file, status in found)


@st.cache_data(max_entries=32, show_spinner="Drawing the crops …")
def people_png(
    folder: str, name: str, files: Stamp, _result: EvalResult, pids: tuple[int, ...], root: str | None
) -> bytes:
    """All crops of one person by camera, or some crops of several."""
    parts = parts_of(_result)
    sheet = person_sheet(parts, pids[0], lambda path: read_picture(path, root)) if len(pids) == 1 else None
    return to_png(sheet or people_sheet(parts, pids, lambda path: read_picture(path, root)), max_width=1000)


@st.cache_data(max_entries=8, show_spinner="Drawing the sample …")
def _sample_png(place: str, seed: int, files: Stamp) -> bytes:
    found = _look_at(place, seed, files)
    return to_png(card_sheet(found.pictures, drawn_words(found.drawn)))


@st.cache_resource(max_entries=4, show_spinner="Reading the data set …")
def _load_training(name: str, root: str, files: Stamp) -> ReidDataset:
    from lab.data import load

    return load(name, root)


@st.cache_resource(max_entries=4, show_spinner="Looking at the images …")
def _look_at(place: str, seed: int, files: Stamp):
    from lab.data.overview import look

    return look(place, PICTURES, seed=seed)


def _is_there(place: Path) -> bool:
    try:
        return place.exists()
    except (OSError, ValueError):  # a name that is too long, or holds a zero byte
        return False
