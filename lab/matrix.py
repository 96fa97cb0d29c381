"""The cross-domain matrix: every model on every data set, and which of them it was trained on.

A cell is an ordinary evaluation in the run's own eval/. One whose result is there, of the same weights, crops and
settings, is read and not ranked again: a matrix that was stopped, or gets one more run or data set, goes on.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pandas as pd
from torch import nn

from lab.data import ReidDataset, load
from lab.errors import InputError
from lab.evaluate.domains import acquaintance, trained_on
from lab.evaluate.evaluate import evaluate_run, stored_result
from lab.evaluate.settings import EvaluateConfig, eval_name
from lab.files import replacing
from lab.models import load_descriptor, load_model
from lab.runs import EvalResult, Run
from lab.show.matrix import LEGEND, matrix_table
from lab.weights import resolve_weights, weights_digest

COLUMN = re.compile(r"^(?P<name>[\w-]+)(/(?P<split>\d+))?(:(?P<label>[\w.-]+))?=(?P<root>.+)$")
FIGURES = ("mAP", "rank-1", "rank-5", "rank-10", "mINP")
FIELDS = (
    "run",
    "trained_on",
    "dataset",
    "known",
    *FIGURES,
    "num_query",
    "num_valid_query",
    "num_gallery",
    "result",
    "error",
)
FAILURES = (InputError, OSError, RuntimeError, MemoryError)  # RuntimeError is torch's, as for a GPU that is full


@dataclass(frozen=True, eq=False)
class Column:
    """A data set of the matrix: `name` is what it is, `dataset.name` what it is called here."""

    name: str
    root: Path
    dataset: ReidDataset


def read_column(words: str) -> Column:
    """A data set from NAME=ROOT; NAME:LABEL=ROOT gives it another name in the matrix, NAME/7=ROOT is its split 7.

    Raises InputError for other words and for a data set that cannot be read.
    """
    match = COLUMN.match(words)
    if match is None:
        raise InputError(
            f"'{words}' names no data set; expected NAME=ROOT such as market1501=/data/market, NAME:LABEL=ROOT to call it "
            "LABEL, or NAME/SPLIT=ROOT"
        )
    if (match["label"] or "").endswith(("-rerank", "-aqe")):
        raise InputError(f"'{words}' ends its label as an improved ranking is called; give it another ending")
    found = load(match["name"], match["root"], split=int(match["split"] or 0))
    return Column(found.name, Path(match["root"]), replace(found, name=match["label"] or found.name))


def read_columns(words: Sequence[str]) -> list[Column]:
    """All data sets of a matrix; two of one name are an InputError."""
    columns = [read_column(each) for each in words]
    for name, count in Counter(column.dataset.name for column in columns).items():
        if count > 1:
            raise InputError(
                f"{count} data sets are called '{name}', which their results would share; give NAME:LABEL=ROOT with labels "
                "of your own"
            )
    return columns


def fill_matrix(
    runs: Sequence[Run],
    columns: Sequence[Column],
    config: EvaluateConfig | None = None,
    open_model: Callable[[Run], nn.Module] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Evaluate every run on every data set, or read what is stored; one row per cell, figures as fractions.

    Columns: run, trained_on, dataset, known ("home", "seen" or "", see `lab.evaluate.domains`), the figures, the numbers
    of queries and gallery crops, the folder of the result, and error: why a cell failed, whose figures are empty then.
    A model is opened by `open_model` (usually `model_of`) only if one of its cells has to be made.
    """
    rows = []
    for run, name in zip(runs, row_names(runs), strict=True):
        model = cache(lambda run=run: (open_model or model_of)(run))
        for column in columns:
            row = dict.fromkeys(FIELDS) | {"run": name, "trained_on": trained_on(run), "dataset": column.dataset.name}
            row |= {"known": acquaintance(run, column.name, column.root), "error": ""}
            try:
                result, stored = evaluate_cell(run, column.dataset, config, model, progress)
                folder = run.folder / "eval" / eval_name(column.dataset.name, result.settings)
                row |= figures(result) | {"result": str(folder)}
                outcome = f"mAP {100 * result.mAP:.2f} %{', which was stored' if stored else ''}"
            except FAILURES as error:
                row["error"] = outcome = str(error).strip().split("\n")[0] or type(error).__name__
            rows.append(row)
            if progress:
                print(f"{name} on {column.dataset.name}: {outcome}")
    return pd.DataFrame(rows, columns=list(FIELDS))


def evaluate_cell(
    run: Run, dataset: ReidDataset, config: EvaluateConfig | None, model: Callable[[], nn.Module], progress: bool
) -> tuple[EvalResult, bool]:
    """The result of one run on one data set, and whether it was stored already."""
    digest = digest_of(run)
    result = stored_result(run, dataset, config, digest)
    if result is not None:
        return result, True
    return evaluate_run(run, model(), dataset, config, progress, digest), False


def model_of(run: Run) -> nn.Module:
    """The model of a run: in its checkpoint, or the weights from elsewhere that it was made to evaluate."""
    return load_descriptor(run.config["settings"]["weights"])[0] if _is_of_weights(run) else load_model(run)


def digest_of(run: Run) -> str | None:
    """The digest of weights from elsewhere; None for a run that has a checkpoint of its own.

    Raises InputError if they are no longer those that the run was made with.
    """
    if not _is_of_weights(run):
        return None
    weights, made_with = run.config["settings"]["weights"], (run.config.get("init") or {}).get("sha256")
    digest = weights_digest(resolve_weights(weights))
    if digest != made_with:
        raise InputError(
            f"{weights} has changed since {run.folder} was made; evaluate it in a new folder: lab evaluate --weights "
            f"{weights} --out …"
        )
    return digest


def row_names(runs: Sequence[Run]) -> list[str]:
    """What the runs are called: their folder's name, with as much of the path before it as tells them apart."""
    parts = [run.folder.absolute().parts for run in runs]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise InputError(f"a run was given twice among {', '.join(str(run.folder) for run in runs)}; give each once")


def figures(result: EvalResult) -> dict[str, float | int]:
    """The means of one result as fractions, and over how many crops they go."""
    cmc = {f"rank-{k}": float(result.cmc[min(k, len(result.cmc)) - 1]) for k in (1, 5, 10)}
    numbers = {name: getattr(result, name) for name in ("num_query", "num_valid_query", "num_gallery")}
    return {"mAP": result.mAP, **cmc, "mINP": result.mINP} | numbers


def write_matrix(folder: Path, table: pd.DataFrame) -> Path:
    """Write matrix.csv, one row per cell, in place of an earlier one."""
    file = folder / "matrix.csv"
    try:
        with replacing(file) as temporary:
            table.to_csv(temporary, index=False)
    except OSError as error:
        raise InputError(f"cannot write {file} ({error.strerror}); give --out a writable folder") from error
    return file


def make_matrix(runs: Sequence[Path], datasets: Sequence[str], out: Path, config: EvaluateConfig) -> None:
    """Fill the matrix, print it and write it; cells that failed are an InputError at the end, the others are kept."""
    if not runs or not datasets:
        raise InputError("a matrix got no run or no data set; give --runs RUN … and --datasets NAME=ROOT …")
    opened = [Run.open(run) for run in runs]
    row_names(opened)
    columns = read_columns(datasets)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {out} ({error.strerror}); give --out a writable place") from error
    table = fill_matrix(opened, columns, config)
    file = write_matrix(out, table)
    for metric in ("mAP", "rank-1"):
        print(f"\n{metric} in %\n{matrix_table(table, metric).to_string()}")
    print(f"\n{LEGEND}\nwrote {file}")
    failed = table[table["error"] != ""]
    if len(failed):
        names = "; ".join(f"{row.run} on {row.dataset}: {row.error}" for row in failed.itertuples())
        raise InputError(
            f"{len(failed)} of {len(table)} cells failed ({names}); mend that and give the same command again: the other "
            "cells are kept"
        )


def _is_of_weights(run: Run) -> bool:
    return run.config.get("stage") == "weights"
