"""Which results may stand side by side: those of the same queries and gallery under the same protocol.

*Protocol* is what changes the meaning of a number: the crops, the kind of AP, what the means go over, whose CMC it is,
which entries are removed. It has to be the same. *Method* is what is being compared: model, image size, distance,
re-ranking, query expansion. It may differ, and is said in a note. What a result does not say (it may come from
another program) is taken to be the same, and a note says that too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lab.errors import InputError
from lab.runs import EvalResult, Run

PROTOCOL = ("ap", "denominator", "gallery_shot", "repeats", "seed", "removed", "multi_query", "multi_query_crops")
USUAL = {"denominator": "valid", "gallery_shot": "all", "multi_query": None}  # what a result means that does not say
EXPECTED = ("ap", "removed", "dataset")  # without these a result does not say its protocol
CROPS = ("dataset", "junk_dropped")  # name the crops: they may differ where the crops themselves are the same
SILENT = {  # say when, where and on what it was computed
    "root", "files", "features", "crops", "checkpoint", "weights", "torch", "device", "precision", "verification",
    "approximate",
    "queries_without_match", "queries_without_match_named",
}  # fmt: skip
IMPROVED = dict.fromkeys(("expand", "rerank", "flip"))  # methods that are not there unless a result says so
PER_QUERY = ("path", "pid", "camid", "ap", "inp", "first_match", "index", "distance", "match")
Names = tuple[str, str]


@dataclass(frozen=True, eq=False)
class Chosen:
    """One result of each run by the run's name, the eval folder that it lies in, and what the evaluation is called."""

    evaluation: str
    results: dict[str, EvalResult]
    folders: dict[str, Path]


def choose(runs: Sequence[str | Path], evaluation: str | None = None) -> list[Chosen]:
    """The results to compare, from run folders, or RUN:EVAL for one evaluation of a run.

    Without `evaluation` and without any RUN:EVAL these are all evaluations that every run has. Raises InputError if
    there are none, with what each run has.
    """
    if not runs:
        raise InputError("no run was given; expected run folders: lab compare RUN RUN …")
    opened = [_open(str(run)) for run in runs]
    if evaluation is None and not any(name for _, name in opened):
        common = set.intersection(*(set(run.evals()) for run, _ in opened))
        if not common:
            has = "; ".join(f"{run.folder}: {', '.join(run.evals()) or 'none'}" for run, _ in opened)
            raise InputError(
                f"the runs have no evaluation in common ({has}); evaluate them on the same data, or name one of each as "
                "RUN:EVAL"
            )
        return [_collect([(run, name) for run, _ in opened]) for name in sorted(common)]
    wanted = [(run, name or evaluation) for run, name in opened]
    for run, name in wanted:
        if name is None:
            raise InputError(f"which evaluation of {run.folder} is meant? name it as RUN:EVAL too, or give --eval NAME")
        if name not in run.evals():
            raise InputError(
                f"{run.folder} has no evaluation '{name}'; choose one of {', '.join(run.evals()) or 'none'}"
            )
    return [_collect(wanted)]


def check_comparable(a: EvalResult, b: EvalResult, names: Names = ("A", "B")) -> list[str]:
    """Raise InputError if two results mean different things, naming what differs; return what is worth knowing.

    The notes say in which method they differ and what could not be checked. The order of queries and gallery, and the
    folder that they lie in, may differ.
    """
    before, now = _settings(a), _settings(b)
    try:
        notes, same_gallery = _check_queries(a, b, names), _check_gallery(a, b, names)
    except InputError as error:
        sets = before.get("dataset"), now.get("dataset")
        if None in sets or sets[0] == sets[1]:
            raise
        raise _different("dataset", *sets, names) from error
    if not same_gallery:
        notes.append("a gallery is not known crop by crop: only the number of crops could be compared")
    for field in (*PROTOCOL, *CROPS):
        if field not in before or field not in now or (before[field] or None) == (now[field] or None):
            continue
        if field in PROTOCOL or not same_gallery:
            raise _different(field, _say(before[field]), _say(now[field]), names)
        notes.append(f"{field}: {names[0]} {_say(before[field])}, {names[1]} {_say(now[field])}, of the same crops")
    return notes + _unknown(before, now, names) + _method(before, now, names)


def query_order(a: EvalResult, b: EvalResult, names: Names = ("A", "B")) -> np.ndarray:
    """Where each query of `a` stands in `b`: positions (Q,). Raises InputError if they are not the same queries.

    Files are told apart by their path below the folder that all queries lie in; where a result does not know its
    files, the order has to be the same.
    """
    if len(a.pid) != len(b.pid):
        raise _different("number of queries", len(a.pid), len(b.pid), names)
    order = np.arange(len(a.pid))
    if _knows_files(a.path) and _knows_files(b.path):
        keys = [_sort_key(result.path, result.pid, result.camid) for result in (a, b)]
        (files_a, order_a), (files_b, order_b) = keys
        if not np.array_equal(files_a[order_a], files_b[order_b]):
            raise _different("file of a query", *_first_alone(files_a, files_b), names)
        order[order_a] = order_b
    for field in ("pid", "camid"):
        before, now = getattr(a, field), getattr(b, field)[order]
        if (before != now).any():
            i = int(np.flatnonzero(before != now)[0])
            raise _different(f"{field} of query {a.path[i] or i}", before[i], now[i], names)
    return order


def align(a: EvalResult, b: EvalResult, names: Names = ("A", "B")) -> EvalResult:
    """`b` with its queries in the order of `a`."""
    order = query_order(a, b, names)
    return replace(b, **{name: getattr(b, name)[order] for name in PER_QUERY})


def relative_names(paths: Sequence[str]) -> np.ndarray:
    """Paths below the folder that they all lie in, with forward slashes: the same on every machine."""
    paths = [str(path).replace("\\", "/") for path in paths]
    first, last = min(paths, default=""), max(paths, default="")  # what these two begin with, all begin with
    same = next((i for i, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    start = first.rfind("/", 0, same) + 1
    return np.array([path[start:] for path in paths], dtype=np.str_)


def _open(word: str) -> tuple[Run, str | None]:
    """A run and the evaluation that was named with it, from RUN or RUN:EVAL."""
    folder, colon, name = word.rpartition(":")
    if colon and name and not Path(word).is_dir() and Path(folder).is_dir():
        return Run.open(folder), name
    return Run.open(word), None


def _collect(wanted: list[tuple[Run, str]]) -> Chosen:
    """The results under names that tell them apart: the run's, with its evaluation and its parent folder if needed."""
    evals = list(dict.fromkeys(name for _, name in wanted))
    folders = [run.folder.resolve() for run, _ in wanted]
    ending = [f":{name}" if len(evals) > 1 else "" for _, name in wanted]
    short = [folder.name + end for folder, end in zip(folders, ending, strict=True)]
    long = [f"{folder.parent.name}/{name}" for folder, name in zip(folders, short, strict=True)]
    full = [f"{folder}{end}" for folder, end in zip(folders, ending, strict=True)]
    labels = next((labels for labels in (short, long, full) if len(set(labels)) == len(wanted)), None)
    if labels is None:
        twice = next(name for name in full if full.count(name) > 1)
        raise InputError(f"{twice} was given twice; expected different runs, or other evaluations of it as RUN:EVAL")
    results = {label: run.result(name) for label, (run, name) in zip(labels, wanted, strict=True)}
    paths = {label: run.folder / "eval" / name for label, (run, name) in zip(labels, wanted, strict=True)}
    return Chosen(", ".join(evals), results, paths)


def _check_queries(a: EvalResult, b: EvalResult, names: Names) -> list[str]:
    order = query_order(a, b, names)
    lonely_a, lonely_b = ~(a.first_match > 0), ~(b.first_match[order] > 0)
    if (lonely_a != lonely_b).any():
        i = int(np.flatnonzero(lonely_a != lonely_b)[0])
        what = ["none" if lonely[i] else "one" for lonely in (lonely_a, lonely_b)]
        raise _different(f"valid match of query {a.path[i] or i}", *what, names)
    if _knows_files(a.path) and _knows_files(b.path):
        return []
    return ["the files of the queries are not known: they were matched by their order, pid and camid"]


def _check_gallery(a: EvalResult, b: EvalResult, names: Names) -> bool:
    """Raise InputError if the galleries differ; False if that cannot be seen."""
    if a.num_gallery != b.num_gallery:
        raise _different("number of gallery crops", a.num_gallery, b.num_gallery, names)
    if a.gallery_pid is None or b.gallery_pid is None:
        return False
    known = _knows_files(a.gallery_path) and _knows_files(b.gallery_path)
    columns = [
        (
            result.gallery_path if known else np.full(len(result.gallery_pid), ""),
            result.gallery_pid,
            result.gallery_camid,
        )
        for result in (a, b)
    ]
    if all(np.array_equal(*pair) for pair in zip(*columns, strict=True)):
        return True
    (files_a, order_a), (files_b, order_b) = (_sort_key(*column) for column in columns)
    if not np.array_equal(files_a[order_a], files_b[order_b]):
        raise _different("file of a gallery crop", *_first_alone(files_a, files_b), names)
    for field, number in (("pid", 1), ("camid", 2)):
        before, now = columns[0][number][order_a], columns[1][number][order_b]
        if not np.array_equal(before, now):
            i = int(np.flatnonzero(before != now)[0])
            raise _different(f"{field} of gallery crop {files_a[order_a][i] or i}", before[i], now[i], names)
    return True


def _sort_key(path: np.ndarray, pid: np.ndarray, camid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The relative names of crops, and the order in which two lists of the same crops are equal."""
    files = relative_names(path)
    return files, np.lexsort((camid, pid, files))


def _knows_files(path: np.ndarray | None) -> bool:
    return path is not None and bool((path != "").all())


def _first_alone(files_a: np.ndarray, files_b: np.ndarray) -> tuple[str, str]:
    """One file that only the first list has and one that only the second has; "none" where there is none."""
    alone = np.setdiff1d(files_a, files_b), np.setdiff1d(files_b, files_a)
    return tuple(f"{files[0]} (and {len(files) - 1} more)" if len(files) else "none of its own" for files in alone)


def _settings(result: EvalResult) -> dict:
    return USUAL | result.settings if isinstance(result.settings, dict) else dict(USUAL)


def _unknown(before: dict, now: dict, names: Names) -> list[str]:
    notes = []
    for name, settings in zip(names, (before, now), strict=True):
        missing = [field for field in EXPECTED if field not in settings]
        if missing:
            notes.append(f"{name} does not say its {', '.join(missing)}: taken to be as in the others")
    return notes


def _method(before: dict, now: dict, names: Names) -> list[str]:
    """Where the methods differ, as far as both say what theirs is."""
    before, now = IMPROVED | before, IMPROVED | now
    fields = [field for field in before if field in now and field not in {*PROTOCOL, *CROPS} | SILENT]
    return [
        f"{field}: {names[0]} {_say(before[field])}, {names[1]} {_say(now[field])}"
        for field in fields
        if before[field] != now[field]
    ]


def _say(value) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key} {item}" for key, item in value.items())
    return "none" if value is None else str(value)


def _different(field: str, before, now, names: Names) -> InputError:
    return InputError(
        f"{names[0]} and {names[1]} cannot be compared: {field} is {before} in {names[0]} and {now} in {names[1]}; "
        "expected the same queries, gallery and protocol: evaluate both in the same way"
    )
