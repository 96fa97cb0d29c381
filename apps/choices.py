"""The selectors that pages share; each is a function that returns a value, and each choice lives in the URL."""

import random
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st
from loaders import read_result

from lab.runs import EvalResult, Run
from lab.show.tables import RERANK, describe_query, query_table

SHOWN = 3  # runs whose rank lists stand one under the other
LISTS = ("in order", "worst AP first", "wrong at rank 1", "one person")


@dataclass(frozen=True)
class Choices:
    """What the sidebar says: `evals` maps each chosen run's name to (run, evaluation name, result)."""

    folder: Path
    runs: list[Run]
    dataset: str
    rerank: bool
    evals: dict[str, tuple[Run, str, EvalResult]]


def choose(folder: Path, runs: list[Run], problems: list[str]) -> None:
    """Ask in the sidebar which runs to look at; pages get the answer from `chosen`."""
    results, problems = {}, list(problems)
    for run in runs:
        for name in run.evals():
            result, problem = read_result(run, name)
            if result is None:
                problems.append(problem)
            else:
                results[run.name, name] = (run, name, result)
    with st.sidebar:
        dataset = _choose_dataset(sorted({name.removesuffix(RERANK) for _, name in results}))
        rerank = _choose_ranking(dataset, results)
        ending = RERANK if rerank else ""
        found = {run: entry for (run, name), entry in results.items() if name == dataset + ending}
        names = _choose_runs(found)
        if problems:
            st.error(f"{len(problems)} thing(s) in this folder cannot be read", icon=":material/error:")
            with st.expander("What is wrong"):
                for problem in problems:
                    st.text(problem)
        st.caption(f"Runs are read from {plain(str(folder))}")
    st.session_state["choices"] = Choices(folder, runs, dataset, rerank, {name: found[name] for name in names})


def chosen() -> Choices:
    return st.session_state["choices"]


def need_results(choices: Choices) -> None:
    """Stop a page that has no result to show, and say what makes one."""
    if choices.evals:
        return
    if choices.dataset:
        st.info("Choose at least one run in the sidebar.")
    else:
        st.info("None of these runs was evaluated yet. This command evaluates one:")
        st.code("lab evaluate --run RUN --dataset NAME --root DIR", language="bash")
    st.stop()


def choose_query(run: str, result: EvalResult) -> int:
    """Ask for one query: which list of queries, then which of them."""
    left, middle, right = st.columns([1.3, 1.7, 1.1], vertical_alignment="bottom")
    with left:
        queries = _choose_list(run, query_table(result))
    labels = {query_label(result, query): query for query in queries}
    if not labels:
        st.success(f"{plain(run)} has the right person at rank 1 for every query.")
        st.stop()
    _keep_valid("query", labels)
    if st.session_state.pop("start_at_first", False):
        st.session_state["query"] = next(iter(labels))
    query = middle.selectbox(f"Query ({len(labels)} in this list)", list(labels), key="query", bind="query-params")
    steps = {"Previous query": ("arrow_back", -1), "Next query": ("arrow_forward", 1), "Any query": ("shuffle", 0)}
    with right.container(horizontal=True, gap="xsmall"):
        for words, (icon, step) in steps.items():
            st.button("", icon=f":material/{icon}:", help=words, key=icon, on_click=_move, args=(list(labels), step))
    return labels[query]


def _choose_list(run: str, table: pd.DataFrame) -> list[int]:
    """Which queries to choose from, and in which order."""
    words = f"AP and rank 1 of the run {plain(run)}"
    order = st.selectbox("Queries", LISTS, key="queries", bind="query-params", on_change=_start_at_first, help=words)
    if order == "one person":
        pid = st.selectbox("Person (pid)", sorted(set(table["pid"].tolist())), key="pid", bind="query-params")
        table = table[table["pid"] == pid]
    elif order == "worst AP first":
        table = table[table["first match"] > 0].sort_values("AP", kind="stable")
    elif order == "wrong at rank 1":
        table = table[table["first match"] > 1]
    return table.index.tolist()


def query_label(result: EvalResult, query: int) -> str:
    """How a query is called in selectors and in the URL: the same for every run of a data set."""
    return f"{query} · pid {result.pid[query]} · cam {result.camid[query]}"


def find_query(result: EvalResult, path: str) -> int | None:
    """Where another run keeps the query with this path."""
    found = np.flatnonzero(result.path == path)
    return int(found[0]) if len(found) else None


def spoken(result: EvalResult, query: int, title: str) -> str:
    """A rank list in words, for those who cannot see the picture."""
    first = ["right" if right else "wrong" for right in result.match[query][result.index[query] >= 0][:5]]
    return f"Rank list of {title}: {describe_query(result, query)}. First ranks: {', '.join(first) or 'none'}."


def plain(text: str) -> str:
    """Text from a file, made safe for a place that understands Markdown."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|<>~$:&])", r"\\\1", text)


def _choose_dataset(datasets: list[str]) -> str:
    if len(datasets) < 2:
        return datasets[0] if datasets else ""
    return st.selectbox("Data set", datasets, key="dataset", bind="query-params")


def _choose_ranking(dataset: str, results: dict) -> bool:
    endings = {name.endswith(RERANK) for _, name in results if name.removesuffix(RERANK) == dataset}
    if len(endings) < 2:
        return endings == {True}
    return st.toggle("Re-ranked", key="rerank", bind="query-params", help="Rankings after k-reciprocal re-ranking")


def _choose_runs(found: dict) -> list[str]:
    """Which of the runs; at first the best ones by mAP."""
    if not found:
        return []
    best = sorted(found, key=lambda name: -found[name][2].mAP)[:SHOWN]
    _keep_valid("run", found)
    return st.multiselect(
        "Runs", list(found), default=best, key="run", bind="query-params", help="The best three by mAP at first"
    )


def _keep_valid(key: str, options) -> None:
    """Forget a choice that the present options do not hold, for instance after the data set was changed."""
    value = st.session_state.get(key)
    if isinstance(value, list):
        if any(item not in options for item in value):
            st.session_state[key] = [item for item in value if item in options]
    elif value is not None and value not in options:
        del st.session_state[key]


def _start_at_first() -> None:
    """A new list of queries is looked at from its top, for instance from the worst query."""
    st.session_state["start_at_first"] = True


def _move(labels: list[str], step: int) -> None:
    if step == 0:
        st.session_state["query"] = random.choice(labels)
    else:
        st.session_state["query"] = labels[(labels.index(st.session_state["query"]) + step) % len(labels)]
