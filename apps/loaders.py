"""Reading run folders for the explorer, each thing once: keyed by what it is and by when its files changed.

Whatever someone dropped into a run folder, the reader answers with a sentence and never raises.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from lab.errors import InputError
from lab.runs import EvalResult, Run
from lab.show.figures import rank_list_figure, to_png
from lab.show.images import find_image, read_picture

Stamp = tuple[tuple[str, int, int], ...]


def find_folder() -> Path:
    """The folder of runs: LAB_RUNS, or else the first of runs/ and demo/runs/ that exists."""
    if os.environ.get("LAB_RUNS"):
        return Path(os.environ["LAB_RUNS"])
    return next((path for path in (Path("runs"), Path("demo/runs")) if path.is_dir()), Path("runs"))


def data_root() -> str | None:
    """Where to look for an image that is not where its run says."""
    return os.environ.get("LAB_DATA") or None


def list_runs(folder: Path) -> tuple[list[Run], list[str]]:
    """The runs in `folder` by name, and a sentence on each folder that looks like one and cannot be read."""
    runs, problems = [], []
    try:
        paths = sorted(
            path for path in folder.iterdir() if (path / "config.json").is_file() or (path / "eval").is_dir()
        )
    except OSError:
        return [], []
    for path in paths:
        try:
            run = Run(path)
        except InputError as error:
            problems.append(f"{path.name}: {error}")
            continue
        if isinstance(run.config, dict):
            runs.append(run)
        else:
            problems.append(f"{path.name}: config.json holds no settings; restore it or start the run anew")
    return runs, problems


def read_result(run: Run, name: str) -> tuple[EvalResult | None, str]:
    """The evaluation `name` of a run, or None and a sentence on what is wrong with it."""
    files = stamp(run.folder / "eval" / name, run.folder / "features")
    try:
        return _read_result(str(run.folder), name, files), ""
    except Exception as error:  # the folder may come from anywhere: what is wrong with it is shown, not raised
        return None, f"{run.name}: evaluation {name} cannot be shown. {error}"


def read_log(run: Run) -> tuple[pd.DataFrame, str]:
    """log.csv of a run, or an empty table and a sentence on what is wrong with it."""
    try:
        log = run.log()
    except (OSError, ValueError) as error:
        return pd.DataFrame(), f"{run.name}: log.csv cannot be read ({error})"
    if len(log) and "step" not in log:
        return pd.DataFrame(), f"{run.name}: log.csv has no column 'step'; it has {', '.join(map(str, log.columns))}"
    numbers = log.apply(pd.to_numeric, errors="coerce")
    return numbers, ""


@st.cache_data(max_entries=256, show_spinner=False)
def rank_list_png(folder: str, name: str, files: Stamp, query: int, top_k: int, title: str, root: str | None) -> bytes:
    """The picture of one rank list."""
    result = _read_result(folder, name, files)
    return to_png(rank_list_figure(result, query, top_k, lambda path: read_picture(path, root), title))


@st.cache_resource(max_entries=4, show_spinner="Loading the model …")
def load_model(checkpoint: str, files: Stamp):
    """The fine-tuned model in a checkpoint; this is the only place where the explorer needs torch."""
    from lab.finetune.train import load

    return load(checkpoint)


@st.cache_data(max_entries=64, show_spinner="Computing attention maps …")
def attention_maps(
    checkpoint: str, files: Stamp, path: str, other: str | None, size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Grad-CAM of each MGN branch for the crop at `path`: what its feature rests on, or what makes it like `other`."""
    import torch

    from lab.data.crops import read_image, resize, to_tensor
    from lab.evaluate.attention import attention_map

    model = load_model(checkpoint, files)
    target = None
    if other is not None:
        with torch.inference_mode():
            target = model.embed(to_tensor(resize(read_image(other), *size)).unsqueeze(0))[0].numpy()
    image = read_picture(path)
    if image is None:
        raise InputError(f"{path} cannot be read as a picture; replace the file")
    return {branch: attention_map(model, image, target, branch, size) for branch in ("b1", "b2", "b3")}


@st.cache_resource(max_entries=4, show_spinner=False)
def true_masks(root: str, files: Stamp) -> dict:
    """The true person of each synthetic test crop, by file name."""
    from lab.data.synthetic import load_ground_truth

    return load_ground_truth(Path(root))


def find_mask(path: str) -> np.ndarray | None:
    """The true person (H, W) bool of a synthetic crop; None for a real one."""
    file = find_image(path, data_root())
    if file is None:
        return None
    root = file.parent.parent
    truth = root / "ground_truth.npz"
    if not truth.is_file():
        return None
    try:
        found = true_masks(str(root), stamp(truth)).get(file.name)
    except (InputError, ValueError, OSError, KeyError):
        return None  # the outline is an extra; without it the map is shown as for a real crop
    return None if found is None else found[0]


def stamp(*places: Path) -> Stamp:
    """Name, size and time of the files at or directly in `places`: changes when one of them does."""
    files = [file for place in places for file in (sorted(place.iterdir()) if place.is_dir() else [place])]
    statuses = [(file.name, file.stat()) for file in files if file.exists()]
    return tuple((name, status.st_size, status.st_mtime_ns) for name, status in statuses)


@st.cache_resource(max_entries=64, show_spinner=False)
def _read_result(folder: str, name: str, files: Stamp) -> EvalResult:
    result = Run(folder).result(name)
    check_shapes(result)
    return result


def check_shapes(result: EvalResult) -> None:
    """Refuse a result whose parts do not belong together, which would fail later and elsewhere."""
    queries = len(result.path)
    for name in ("index", "distance", "match"):
        shape = getattr(result, name).shape
        if len(shape) != 2 or shape[0] != queries or shape != result.index.shape:
            raise InputError(
                f"ranks.npz holds {name} {shape} for {queries} queries; expected ({queries}, ranks): evaluate again"
            )
    if result.cmc.ndim != 1 or not len(result.cmc):
        raise InputError(
            f"result.json holds a cmc of shape {result.cmc.shape}; expected a list of numbers: evaluate again"
        )
    gallery = None if result.gallery_path is None else len(result.gallery_path)
    if gallery is not None and result.index.max(initial=-1) >= gallery:
        raise InputError(f"ranks.npz points at gallery crop {result.index.max()} of {gallery}: evaluate the run again")
