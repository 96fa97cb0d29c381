"""Results as tables that can be read, sorted and saved as CSV. Percentages are 0..100."""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from lab.runs import EvalResult, Run
from lab.show.images import file_name

METRICS = ["mAP", "rank-1", "rank-5", "rank-10", "mINP"]
RERANK = "-rerank"

ReadResult = Callable[[Run, str], EvalResult | None]


def metrics_table(runs: Iterable[Run], read: ReadResult = Run.result) -> pd.DataFrame:
    """One row per run and evaluation: what the run is and how well it finds people.

    `read(run, name)` gives the result; where it gives None the row is left out. A query without a valid match counts
    in no mean, so "queries counted" may be smaller than "queries", unless the result counts it as 0.
    """
    rows = []
    for run in runs:
        for name in run.evals():
            result = read(run, name)
            if result is not None:
                rows.append(describe_run(run) | describe_eval(name) | metrics(result))
    columns = [*describe_run(None), *describe_eval(""), *METRICS, "queries counted", "queries", "gallery"]
    return pd.DataFrame(rows, columns=columns)


def metrics(result: EvalResult) -> dict:
    """The means of one evaluation in per cent, and over how many queries and gallery crops they go."""
    cmc = 100 * np.asarray(result.cmc)
    return {
        "mAP": 100 * result.mAP,
        "rank-1": cmc[0],
        "rank-5": cmc[min(5, len(cmc)) - 1],
        "rank-10": cmc[min(10, len(cmc)) - 1],
        "mINP": 100 * result.mINP,
        "queries counted": result.num_query if counts_all(result) else result.num_valid_query,
        "queries": result.num_query,
        "gallery": result.num_gallery,
    }


def counts_all(result: EvalResult) -> bool:
    """Whether a query without a valid match counts as 0 in the means; else it counts in none."""
    return isinstance(result.settings, dict) and result.settings.get("denominator") == "all"


def describe_run(run: Run | None) -> dict:
    """Name, stage, initial weights and share of the training identities, "" where the run does not say."""
    config = run.config if run else {}
    fraction = settings_of(config).get("fraction")
    return {
        "run": run.name if run else "",
        "stage": str(config.get("stage") or ""),
        "initialised from": initialisation(config),
        "identities used": f"{100 * fraction:g} %" if isinstance(fraction, int | float) else "",
    }


def settings_of(config: dict) -> dict:
    """The settings in a config.json; empty where it has none, as in a folder that another program made."""
    settings = config.get("settings")
    return settings if isinstance(settings, dict) else {}


def initialisation(config: dict) -> str:
    """What a run started from, in one word or two: the name of a run or file, "scratch", or "" for no training."""
    init = config.get("init")
    if isinstance(init, dict):
        init = init.get("weights")
    if init is None:
        return "scratch" if config.get("stage") in ("pretrain", "finetune") else ""
    name = file_name(str(init).rstrip("/\\"))
    if name == "checkpoint.pt":
        name = file_name(str(init).replace("\\", "/").removesuffix("/checkpoint.pt"))
    return name


def describe_eval(name: str) -> dict:
    """The data set and whether the ranking was re-ranked, from the name of an evaluation."""
    return {"data set": name.removesuffix(RERANK), "re-ranking": "yes" if name.endswith(RERANK) else "no"}


def rank_list_table(result: EvalResult, query: int, top_k: int | None = None) -> pd.DataFrame:
    """The rank list of one query, nearest first: rank, right or wrong, distance, pid, camid and file.

    What the protocol removes (the same person by the same camera) is not in the list. pid, camid and file are missing
    when the result does not say what its gallery is.
    """
    index = result.index[query]
    kept = np.flatnonzero(index >= 0)[:top_k]
    table = pd.DataFrame(
        {
            "rank": kept + 1,
            "match": np.where(result.match[query][kept], "right", "wrong"),
            "distance": result.distance[query][kept].astype(np.float64),
            "gallery index": index[kept],
        }
    )
    if result.gallery_path is not None:
        for column, values in (
            ("pid", result.gallery_pid),
            ("camid", result.gallery_camid),
            ("file", result.gallery_path),
        ):
            table[column] = values[index[kept]]
    return table


def query_table(result: EvalResult) -> pd.DataFrame:
    """One row per query: pid, camid, AP and INP in per cent, rank of the first right one (0 = no valid match), file."""
    return pd.DataFrame(
        {
            "pid": result.pid,
            "camid": result.camid,
            "AP": 100 * result.ap.astype(np.float64),
            "INP": 100 * result.inp.astype(np.float64),
            "first match": result.first_match,
            "file": result.path,
        }
    ).rename_axis("query")


def describe_query(result: EvalResult, query: int) -> str:
    """One line on how a query fared: its AP and where the first right one stands."""
    first = int(result.first_match[query])
    if first == 0:
        fate = "counts as 0 in every mean" if counts_all(result) else "counts in no mean"
        return f"no valid match in the gallery: this query {fate}"
    where = "right at rank 1" if first == 1 else f"first right one at rank {first}"
    return f"AP {100 * result.ap[query]:.1f} % · {where}"
