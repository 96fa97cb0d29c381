"""Reading run folders for the explorer, each thing once: keyed by what it is and by when its files changed.

Whatever someone dropped into a run folder, the reader answers with a sentence and never raises.
"""

import json
import os
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from lab.errors import InputError
from lab.evaluate.camera_pairs import FILE as CAMERAS
from lab.evaluate.camera_pairs import CameraPairs
from lab.evaluate.compare import intervals
from lab.evaluate.error_rates import Verification
from lab.runs import EvalResult, Features, Run
from lab.show.images import find_image, read_picture, to_thumbnail
from lab.show.tables import settings_of

PAIRS = "verification.npz"
NEEDED = ("result.json", "queries.csv", "ranks.npz")
SUMMARY = ("mAP", "mINP", "cmc", "num_query", "num_valid_query", "num_gallery")
MOST_BYTES = 2 << 30  # of the small files of a run; a larger one is no such file
DRAWS = 2000  # bootstrap draws of the intervals in tables: their ends are good to a tenth of a point

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
            check_files(path, [path / "config.json", path / "log.csv"])
            run = Run(path)
        except (InputError, OSError) as error:
            problems.append(f"{path.name}: {error}")
            continue
        if isinstance(run.config, dict):
            runs.append(run)
        else:
            problems.append(f"{path.name}: config.json holds no settings; restore it or start the run anew")
    return runs, problems


def read_summary(run: Run, name: str) -> tuple[dict | None, str]:
    """result.json of an evaluation: mAP, mINP, cmc and counts, without the rank lists; or None and what is wrong."""
    folder = run.folder / "eval" / name
    try:
        return _read_summary(str(folder), stamp(folder)), ""
    except Exception as error:  # the folder may come from anywhere: what is wrong with it is shown, not raised
        return None, f"{run.name}: evaluation {name} cannot be shown. {error}"


def read_result(run: Run, name: str) -> tuple[EvalResult | None, str]:
    """The evaluation `name` of a run, or None and a sentence on what is wrong with it."""
    try:
        return _read_result(str(run.folder), name, stamp_of(run, name)), ""
    except Exception as error:  # as above
        return None, f"{run.name}: evaluation {name} cannot be shown. {error}"


def read_intervals(run: Run, name: str) -> pd.DataFrame | None:
    """mean, low and high of every metric as fractions, from a bootstrap of people; None where nothing can be drawn."""
    try:
        return _intervals(str(run.folder), name, stamp_of(run, name))
    except (InputError, OSError):  # no match at all has means of nothing; a broken result is named beside the table
        return None


def read_pairs(run: Run, name: str) -> tuple[Verification | None, str]:
    """Distances of all pairs (verification.npz), or None and a sentence: not there, or what is wrong with it."""
    return _read_beside(run, name, PAIRS, "distances of pairs", "--verification", _read_pairs)


def read_cameras(run: Run, name: str) -> tuple[CameraPairs | None, str]:
    """What is found in each camera alone (cameras.npz), or None and a sentence: not there, or what is wrong with it."""
    return _read_beside(run, name, CAMERAS, "figures by pair of cameras", "--cameras", _read_cameras)


def _read_beside(run: Run, name: str, file_name: str, what: str, option: str, read):
    """A file that an evaluation writes if it is asked for with `option`."""
    file = run.folder / "eval" / name / file_name
    if not file.is_file():
        return None, (
            f"{run.name} has no {what} for {name}. Evaluate it with {option} to have them: "
            f"{evaluate_command(run, name)} {option}"
        )
    try:
        return read(str(file), stamp(file)), ""
    except Exception as error:  # as above
        return None, f"{run.name}: {file_name} of {name} cannot be shown. {error}"


def read_features(run: Run, dataset: str, part: str) -> tuple[Features | None, str]:
    """Stored features of "query" or "gallery", whose values stay on disk; or None and a sentence."""
    file = run.folder / "features" / f"{dataset}-{part}.npz"
    if not file.is_file():
        return None, f"{run.name} holds no features of {dataset} ({file.name} is not there)."
    try:
        return _open_features(str(file), stamp(file)), ""
    except Exception as error:  # as above
        return None, f"{run.name}: {file.name} cannot be read. {error}"


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


@st.cache_data(max_entries=4096, show_spinner=False)
def thumbnail(path: str, root: str | None) -> bytes:
    """A crop, small, whole and on a grey tile, as a JPEG file; a tile that says so where there is no picture."""
    return to_thumbnail(read_picture(path, root))


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


def stamp_of(run: Run, name: str) -> Stamp:
    """Stamp of all files that an evaluation is shown from."""
    return stamp(run.folder / "eval" / name, run.folder / "features")


def check_files(folder: Path, files: list[Path]) -> None:
    """Refuse files that are none, are far too large, or are links to somewhere outside the run's own folder.

    A run folder may come from anywhere, and what is in these files is shown.
    """
    inside = folder.resolve()
    for file in files:
        if not file.exists() and not file.is_symlink():
            continue
        if not file.resolve().is_relative_to(inside):
            raise InputError(f"{file.name} is a link that leads out of the run's folder; put the file itself there")
        if not file.is_file():
            raise InputError(f"{file.name} is not a regular file; evaluate the run again")
        if file.stat().st_size > MOST_BYTES:
            raise InputError(f"{file.name} has {file.stat().st_size:,} bytes; expected less than {MOST_BYTES:,}")


def evaluate_command(run: Run, name: str) -> str:
    """The command that makes the evaluation `name` of a run anew: of its checkpoint, a baseline, or features from elsewhere."""
    dataset, folder = name.removesuffix("-rerank"), shlex.quote(str(run.folder))
    if run.checkpoint.is_file():
        what = f"--run {folder} --dataset {dataset} --root DIR"
    elif run.config.get("stage") == "baseline":
        baseline = settings_of(run.config).get("baseline", "NAME")
        what = f"--baseline {baseline} --out {folder} --dataset {dataset} --root DIR"
    else:
        what = f"--query-features Q.npz --gallery-features G.npz --out {folder} --name {dataset}"
    return f"lab evaluate {what}" + " --rerank" * (name != dataset)


def _check_eval(folder: Path) -> None:
    run = folder.parent.parent
    check_files(run, [folder / name for name in (*NEEDED, "gallery.csv", PAIRS, CAMERAS)])
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{' and '.join(missing)} of it is not there; evaluate the run again")


@st.cache_resource(max_entries=1024, show_spinner=False)
def _read_summary(folder: str, files: Stamp) -> dict:
    _check_eval(Path(folder))
    summary = json.loads((Path(folder) / "result.json").read_text())
    missing = [key for key in SUMMARY if key not in summary] if isinstance(summary, dict) else SUMMARY
    if missing or not summary["cmc"]:
        raise InputError(f"result.json lacks {', '.join(missing or ['a cmc'])}; evaluate the run again")
    cmc = summary["cmc"] if isinstance(summary["cmc"], list) else ["no list"]
    if not all(isinstance(value, int | float) for value in [*cmc, *(summary[key] for key in SUMMARY if key != "cmc")]):
        raise InputError("result.json holds something else than numbers; evaluate the run again")
    return summary


@st.cache_resource(max_entries=32, show_spinner=False)
def _read_result(folder: str, name: str, files: Stamp) -> EvalResult:
    _check_eval(Path(folder) / "eval" / name)
    result = Run(folder).result(name)
    check_shapes(result)
    return result


@st.cache_data(max_entries=256, show_spinner="Drawing intervals …")
def _intervals(folder: str, name: str, files: Stamp) -> pd.DataFrame:
    return intervals(_read_result(folder, name, files), DRAWS)


@st.cache_resource(max_entries=16, show_spinner=False)
def _read_pairs(file: str, files: Stamp) -> Verification:
    _check_eval(Path(file).parent)
    return Verification.load(Path(file))


@st.cache_resource(max_entries=16, show_spinner=False)
def _read_cameras(file: str, files: Stamp) -> CameraPairs:
    _check_eval(Path(file).parent)
    return CameraPairs.load(Path(file).parent)


@st.cache_resource(max_entries=16, show_spinner=False)
def _open_features(file: str, files: Stamp) -> Features:
    try:
        return Features.load(Path(file), on_disk=True)
    except InputError:
        return Features.load(Path(file))  # compressed, which cannot be read row by row


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
