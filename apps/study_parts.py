"""Studies for the explorer: where there are some, and what one of them shows. No torch.

A study is looked at through its three tables (lab/study/results.py); its runs need not be there.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import streamlit as st
from loaders import Stamp, check_files, stamp
from matplotlib.figure import Figure
from matplotlib.text import Text

from lab.errors import InputError
from lab.show.figures import to_png
from lab.show.study import claims_figure
from lab.study.designs import Study
from lab.study.report import study_figure
from lab.study.results import CELLS, PEOPLE, SETTINGS, Results, load
from lab.study.tables import claims_table, describe, means_table

COMMITTED = Path(__file__).parents[1] / "benchmarks" / "results"  # of the source tree; an installed copy has none
TABLES = (SETTINGS, CELLS, PEOPLE)
MOST_SEEDS = 1000
LONG = 300  # letters of a sentence on what is wrong
USED = ("dataset", "cost_seconds", "machine", "commit", "torch")
PER_CENT = ["mAP", "rank-1", "mINP"]


@dataclass(frozen=True)
class Shown:
    """What a page says about a study: tables in per cent and points, and each claim in a sentence."""

    claims: pd.DataFrame
    means: pd.DataFrame
    sentences: list[str]


def find_studies(folder: Path) -> list[Path]:
    """Folders of studies: `folder` itself, the one that `folder` holds the runs of, those in it, and the source tree's."""
    own = folder.resolve()
    around = [own] if _is_study(own) else [own.parent, *_children(own)]
    found = [path for path in [*around, *_children(COMMITTED)] if _is_study(path)]
    return list(dict.fromkeys(found))


def read_study(folder: Path) -> tuple[Results | None, str]:
    """The tables of a study, or None and a sentence on what is wrong with them."""
    try:
        return _read_study(str(folder), _stamp(folder)), ""
    except Exception as error:  # the folder may come from anywhere: what is wrong with it is shown, not raised
        return None, _sentence(folder, error)


def show_study(folder: Path, study: Study) -> tuple[Shown | None, str]:
    """Claims and means of one study of a folder, or None and a sentence on what is wrong."""
    try:
        return _show_study(str(folder), _stamp(folder), study.name), ""
    except Exception as error:  # as above
        return None, _sentence(folder, error)


def means_png(folder: Path, study: Study) -> tuple[bytes | None, str]:
    """The means beside the published ones as a PNG file; None and a sentence where there is none."""
    try:
        picture = _means_png(str(folder), _stamp(folder), study.name)
    except Exception as error:  # as above
        return None, _sentence(folder, error)
    return picture, "" if picture else "Too few cells are done for a figure of the means."


def claims_png(claims: pd.DataFrame, title: str) -> bytes:
    """Claims and their verdicts as a PNG file."""
    return _claims_png(claims, title)


def cells_table(results: Results, study: Study) -> pd.DataFrame:
    """One row per cell of a study and ranking, in the order of their doing: figures in per cent, cost in CPU minutes."""
    order = {cell.name: number for number, cell in enumerate(study.cells)}
    table = results.cells[results.cells["cell"].isin(list(order))]
    table = table.assign(place=table["cell"].map(order)).sort_values(["place", "rerank"])
    costs = results.settings["cost_seconds"]
    figures = 100 * table[[name for name in PER_CENT if name in table]]
    about = table[["cell", "seed"]].assign(**{"re-ranked": table["rerank"].map({True: "yes", False: "no"})})
    minutes = {"CPU minutes": [costs.get(cell, float("nan")) / 60 for cell in table["cell"]]}
    return pd.concat([about, figures, table[["steps"]].assign(**minutes)], axis=1).reset_index(drop=True)


def label_of(results: Results) -> str:
    """How a study is called: its data set, and how many cells it is planned to have."""
    cells = {cell.name for study in results.studies.values() for cell in study.cells}
    return f"{results.settings['dataset']}, {len(cells)} cells"


def _is_study(folder: Path) -> bool:
    try:
        return all((folder / name).is_file() for name in TABLES)
    except OSError:  # not ours to look into
        return False


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(path.resolve() for path in folder.iterdir())
    except OSError:
        return []


def _stamp(folder: Path) -> Stamp:
    return stamp(*(folder / name for name in TABLES))


def _sentence(folder: Path, error: Exception) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    words = words if len(words) <= LONG else f"{words[: LONG - 80]} … {words[-80:]}"  # what to do about it comes last
    return (
        words[0].upper() + words[1:]
        if isinstance(error, InputError)
        else f"The study in {folder} cannot be shown ({words})"
    )


@st.cache_resource(max_entries=16, show_spinner=False)
def _read_study(folder: str, files: Stamp) -> Results:
    check_files(Path(folder), [Path(folder) / name for name in TABLES])
    results = load(folder)
    _check_settings(folder, results.settings)
    return results


def _check_settings(folder: str, settings: object) -> None:
    """Refuse settings that would fail later and elsewhere."""
    missing = set(USED) - set(settings) if isinstance(settings, dict) else USED
    if missing:
        raise InputError(
            f"{SETTINGS} in {folder} lacks {', '.join(sorted(missing))}; write it anew with lab study report"
        )
    seeds, names = settings.get("seeds"), [settings.get(key) for key in ("weights", "domains", "machine", "commit")]
    lists = all(isinstance(found, list) and all(isinstance(one, str) for one in found) for found in names)
    if not (
        isinstance(seeds, int) and 1 <= seeds <= MOST_SEEDS and lists and isinstance(settings["cost_seconds"], dict)
    ):
        raise InputError(
            f"{SETTINGS} in {folder} holds settings that no study has (seeds, weights, domains, machine, commit or cost); "
            "write it anew with lab study report"
        )


@st.cache_data(max_entries=64, show_spinner="Drawing intervals …")
def _show_study(folder: str, files: Stamp, name: str) -> Shown:
    results = _read_study(folder, files)
    study = results.studies[name]
    judged = results.judge(study)
    return Shown(claims_table(judged), means_table(results, study), [describe(one) for one in judged])


@st.cache_data(max_entries=64, show_spinner="Drawing means …")
def _means_png(folder: str, files: Stamp, name: str) -> bytes | None:
    results = _read_study(folder, files)
    figure = study_figure(results, results.studies[name])
    return None if figure is None else _png(figure)


@st.cache_data(max_entries=64, show_spinner=False)
def _claims_png(claims: pd.DataFrame, title: str) -> bytes:
    return _png(claims_figure(claims, title))


def _png(figure: Figure) -> bytes:
    """A name with dollar signs is no formula."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    return to_png(figure)
