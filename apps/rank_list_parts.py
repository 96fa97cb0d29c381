"""What the page of rank lists can show for one query: the stored list, and lists that are computed now from features.

A `RankList` is ready to be drawn and saved. What cannot be computed is an InputError whose sentence the page shows.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st
from loaders import Stamp, data_root, evaluate_command, read_features, stamp_of

from lab.errors import InputError
from lab.evaluate.search import RIGHT, search
from lab.runs import EvalResult, Features, Run
from lab.show.figures import Entry, describe_list, stored_entries
from lab.show.images import file_name, read_picture
from lab.show.rank_lists import found_entries, found_table, rank_list_picture, to_bytes
from lab.show.tables import RERANK, rank_list_table

MOST_LIVE = 6000  # queries and gallery crops that are re-ranked while one waits: about 3 s on two cores


@dataclass(frozen=True)
class RankList:
    """One list: the query's file and the words below it, its entries, a line above them, and the list as a table."""

    path: str
    words: str
    entries: list[Entry]
    line: str
    table: pd.DataFrame
    known: bool = True  # whether the gallery's files are known

    def picture(self, title: str, scale: float = 1.0):
        root = data_root()
        load = (lambda path: read_picture(path, root)) if self.known else (lambda path: None)
        return rank_list_picture(load(self.path), self.words, self.entries, load, title, self.line, scale=scale)

    def jpeg(self, title: str) -> bytes:
        return to_bytes(self.picture(title), "JPEG")


def stored_list(result: EvalResult, query: int, top_k: int) -> RankList:
    """The list that the evaluation stored; it needs no features."""
    entries = stored_entries(result, query, top_k)
    words = f"pid {result.pid[query]}\ncam {result.camid[query]}"
    line = describe_list(result, query, len(entries))
    table = rank_list_table(result, query)
    return RankList(str(result.path[query]), words, entries, line, table, result.gallery_path is not None)


def list_with_removed(run: Run, dataset: str, result: EvalResult, query: int, top_k: int) -> RankList:
    """The same ranking with the crops that the protocol removes for this query, from stored features."""
    queries, gallery = both_parts(run, dataset, result)
    found = search(queries.values[query], gallery, int(result.pid[query]), int(result.camid[query]), top_k)
    words = f"pid {result.pid[query]}\ncam {result.camid[query]}"
    line = describe_list(result, query, int((found.rank > 0).sum()))
    return RankList(str(result.path[query]), words, found_entries(found, gallery), line, found_table(found, gallery))


def list_of_crop(run: Run, dataset: str, path: str, top_k: int, removed: bool) -> RankList:
    """What the gallery holds for one of its own crops, itself left out."""
    gallery = one_part(run, dataset, "gallery")
    number = np.flatnonzero(gallery.path == path)
    if not len(number):
        raise InputError(f"{run.name} has no gallery crop {file_name(path)}")
    number = int(number[0])
    pid, camid = int(gallery.pid[number]), int(gallery.camid[number])
    found = search(gallery.values[number], gallery, pid, camid, top_k, removed, leave_out=number)
    right = found.rank[found.kind == RIGHT]
    first = f"first right one at rank {right[0]}" if len(right) else f"none of the first {top_k} is right"
    line = f"gallery crop {number} as the query · {first} · {file_name(path)}"
    return RankList(path, f"pid {pid}\ncam {camid}", found_entries(found, gallery), line, found_table(found, gallery))


def reranked_now(run: Run, dataset: str, result: EvalResult, k1: int, k2: int, lambda_value: float) -> EvalResult:
    """All queries of a small set re-ranked with these settings."""
    queries, gallery = both_parts(run, dataset, result)
    size = len(queries.pid) + len(gallery.pid)
    if size > MOST_LIVE:
        raise InputError(
            f"{run.name} has {size:,} crops, and up to {MOST_LIVE:,} are re-ranked while one waits: run "
            f"{evaluate_command(run, f'{dataset}-rerank')} --k1 {k1} --k2 {k2} --lambda-value {lambda_value:g}"
        )
    return _rerank(str(run.folder), dataset, stamp_of(run, dataset), k1, k2, lambda_value)


def one_part(run: Run, dataset: str, part: str) -> Features:
    """Stored features of "query" or "gallery", values on disk."""
    found, problem = read_features(run, dataset.removesuffix(RERANK), part)
    if found is None:
        raise InputError(f"{problem} {evaluate_command(run, dataset)} stores them.")
    return found


def both_parts(run: Run, dataset: str, result: EvalResult) -> tuple[Features, Features]:
    queries, gallery = (one_part(run, dataset, part) for part in ("query", "gallery"))
    if not np.array_equal(queries.path, result.path):
        raise InputError(f"{run.name}: the stored features are not those of the evaluated queries; evaluate it again")
    return queries, gallery


@st.cache_resource(max_entries=8, show_spinner="Re-ranking …")
def _rerank(folder: str, dataset: str, files: Stamp, k1: int, k2: int, lambda_value: float) -> EvalResult:
    from lab.evaluate.metrics import evaluate_ranking
    from lab.evaluate.rerank import rerank_blocks

    queries, gallery = (one_part(Run(folder), dataset, part) for part in ("query", "gallery"))
    values = np.asarray(queries.values), np.asarray(gallery.values)
    return evaluate_ranking(queries, gallery, blocks=rerank_blocks(*values, k1=k1, k2=k2, lambda_value=lambda_value))
