"""The choices that all pages share: which data set, which ranking, which runs. They stand in the sidebar and in the URL."""

from dataclasses import dataclass
from pathlib import Path

import streamlit as st
from loaders import read_result, read_summary
from parts import plain

from lab.runs import EvalResult, Run
from lab.show.tables import RERANK

SHOWN = 3  # runs whose rank lists stand one under the other


@dataclass(frozen=True)
class Choices:
    """What the sidebar says: `evals` maps each chosen run's name to (run, evaluation name, result).

    `found` maps (run name, evaluation name) to what result.json says, of all runs and evaluations that can be read.
    """

    folder: Path
    runs: list[Run]
    dataset: str
    rerank: bool
    evals: dict[str, tuple[Run, str, EvalResult]]
    found: dict[tuple[str, str], dict]

    @property
    def evaluation(self) -> str:
        """The name of the evaluation that is shown of each run."""
        return self.dataset + (RERANK if self.rerank else "")

    def run(self, name: str) -> Run:
        return next(run for run in self.runs if run.name == name)


def choose(folder: Path, runs: list[Run], problems: list[str]) -> None:
    """Ask in the sidebar which runs to look at; pages get the answer from `chosen`."""
    found, problems = {}, list(problems)
    for run in runs:
        for name in run.evals():
            summary, problem = read_summary(run, name)
            if summary is None:
                problems.append(problem)
            else:
                found[run.name, name] = summary
    with st.sidebar:
        dataset = _choose_dataset(found)
        rerank = _choose_ranking(dataset, {name for _, name in found})
        wanted = dataset + (RERANK if rerank else "")
        names = _choose_runs({run: summary["mAP"] for (run, name), summary in found.items() if name == wanted})
        evals = {}
        for run in (run for name in names for run in runs if run.name == name):
            result, problem = read_result(run, wanted)
            if result is None:
                problems.append(problem)
            else:
                evals[run.name] = (run, wanted, result)
        if problems:
            st.error(f"{len(problems)} thing(s) in this folder cannot be read", icon=":material/error:")
            with st.expander("What is wrong"):
                for problem in problems:
                    st.text(problem)
        st.caption(f"Runs are read from {plain(str(folder))}")
    st.session_state["choices"] = Choices(folder, runs, dataset, rerank, evals, found)


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


FIRST = object()


def keep_valid(key: str, options, fallback=FIRST) -> None:
    """Replace a choice that the present options do not hold, for instance after the data set was changed.

    It becomes `fallback`, which is the first option if nothing else is said; of a list the valid items are kept. The
    choice is set and not just forgotten, as the browser would send the old one again.
    """
    value = st.session_state.get(key)
    if isinstance(value, list):
        kept = [item for item in value if item in options]
        if len(kept) < len(value):
            st.session_state[key] = kept or (list(fallback) if isinstance(fallback, list) else [])
    elif value is not None and value not in options:
        if len(options):
            st.session_state[key] = next(iter(options)) if fallback is FIRST else fallback
        else:
            del st.session_state[key]


def _choose_dataset(found: dict[tuple[str, str], dict]) -> str:
    """Which data set; at first the one on which the runs in the address were evaluated, or else most runs."""
    on = {}
    for run, name in found:
        on.setdefault(name.removesuffix(RERANK), set()).add(run)
    if len(on) < 2:
        return next(iter(on), "")
    named = set(st.query_params.get_all("run"))
    if "first dataset" not in st.session_state:
        st.session_state["first dataset"] = max(sorted(on), key=lambda name: (len(named & on[name]), len(on[name])))
    datasets = sorted(on, key=lambda name: (name != st.session_state["first dataset"], name))
    keep_valid("dataset", datasets)
    return st.selectbox("Data set", datasets, key="dataset", bind="query-params")


def _choose_ranking(dataset: str, names: set[str]) -> bool:
    endings = {name.endswith(RERANK) for name in names if name.removesuffix(RERANK) == dataset}
    if len(endings) < 2:
        return endings == {True}
    return st.toggle("Re-ranked", key="rerank", bind="query-params", help="Rankings after k-reciprocal re-ranking")


def _choose_runs(scores: dict[str, float]) -> list[str]:
    """Which of the runs; at first the best ones by mAP."""
    if not scores:
        return []
    best = sorted(scores, key=lambda name: -scores[name])[:SHOWN]
    keep_valid("run", scores, best)
    return st.multiselect(
        "Runs", list(scores), default=best, key="run", bind="query-params", help="The best three by mAP at first"
    )
