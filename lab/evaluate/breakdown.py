"""Where two results differ: by query, by what stands at rank 1, by camera and by pair of cameras.

`a` and `b` have the same queries (`lab.evaluate.comparable` says so, and brings them into one order). Fractions; AP is
NaN for a query that has no match and does not count, 0 for one that counts as 0.

Legend: Q queries, C cameras of the gallery.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lab.errors import InputError
from lab.evaluate.camera_pairs import FILE, CameraPairs
from lab.evaluate.comparable import align, query_order
from lab.evaluate.compare import Comparison, counted_queries
from lab.runs import EvalResult

OUTCOMES = ("right in both", "right in A only", "right in B only", "wrong in both", "no match in the gallery")
DEPTHS = {"rank 2 to 5": 5, "rank 6 to 10": 10, "rank 11 to 50": 50, "beyond rank 50": np.inf}
DISTRACTOR = 0  # the pid of crops of nobody in particular, in a gallery that no query asks for pid 0
INSTEAD = ("distractor", "other person, own camera", "other person, other camera")


@dataclass(frozen=True, eq=False)
class Breakdown:
    """Where run `b` differs from run `a`; `camera_pairs` is None unless both eval folders hold cameras.npz."""

    a: str
    b: str
    queries: pd.DataFrame
    failures: pd.DataFrame
    cameras: pd.DataFrame
    camera_pairs: pd.DataFrame | None


def break_down(comparison: Comparison, folders: Mapping[str, Path] | None = None) -> list[Breakdown]:
    """All tables for each pair of runs that was tested; `folders` are their eval folders, for the pairs of cameras."""
    found = []
    for names in dict.fromkeys((pair.a, pair.b) for pair in comparison.pairs):
        a, b = (comparison.results[name] for name in names)
        known = folders is not None and all((folders[name] / FILE).is_file() for name in names)
        pairs = camera_pair_breakdown(a, b, *(CameraPairs.load(folders[name]) for name in names)) if known else None
        found.append(Breakdown(*names, per_query_table(a, b), failure_groups(a, b), camera_breakdown(a, b), pairs))
    return found


def per_query_table(a: EvalResult, b: EvalResult) -> pd.DataFrame:
    """One row per query, in the order of `a`: path, pid, camid, AP in both, what `b` gained, first match, outcome."""
    b = align(a, b)
    ap_a, ap_b = average_precision(a), average_precision(b)
    return pd.DataFrame(
        {
            "path": a.path,
            "pid": a.pid,
            "camid": a.camid,
            "ap_a": ap_a,
            "ap_b": ap_b,
            "gain": ap_b - ap_a,
            "first_match_a": a.first_match,
            "first_match_b": b.first_match,
            "outcome": _outcome(a, b),
        }
    ).rename_axis("query")


def most_changed(queries: pd.DataFrame, count: int = 5) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of a `per_query_table` that gained most and that lost most, at most `count` each, most first."""
    ordered = queries.sort_values("gain", kind="stable")
    gained, lost = ordered[ordered["gain"] > 0].iloc[::-1], ordered[ordered["gain"] < 0]
    return gained.head(count), lost.head(count)


def failure_groups(a: EvalResult, b: EvalResult) -> pd.DataFrame:
    """How many queries are right or wrong at rank 1, and what is wrong with those that are wrong.

    Columns: `by` (what the groups are made by), `run` ("both", or the one that is wrong: "A", "B"), `group`, `queries`,
    `share` of all queries, mean AP in both. The groups of one `by` and `run` exclude one another: outcome at rank 1; for
    each run's wrong queries the rank of the first right crop, and who stands at rank 1 instead (left out where the
    gallery is not known). A distractor is a crop of pid 0, unless pid 0 is a person whom queries ask for.
    """
    b, rows = align(a, b), []
    aps = [average_precision(result) for result in (a, b)]

    def add(by: str, run: str, group: str, chosen: np.ndarray) -> None:
        mean = [float(ap[chosen].mean()) if chosen.any() else np.nan for ap in aps]
        facts = {"queries": int(chosen.sum()), "share": float(chosen.mean()), "ap_a": mean[0], "ap_b": mean[1]}
        rows.append({"by": by, "run": run, "group": group, **facts})

    outcome = _outcome(a, b)
    for group in OUTCOMES:
        if group != OUTCOMES[-1] or (outcome == group).any():
            add("at rank 1", "both", group, outcome == group)
    for run, result in (("A", a), ("B", b)):
        first, from_rank = result.first_match, 1
        for group, to_rank in DEPTHS.items():
            add("first right crop", run, group, (first > from_rank) & (first <= to_rank))
            from_rank = to_rank
        for group, chosen in _instead(result).items():
            add("at rank 1 instead", run, group, chosen)
    return pd.DataFrame(rows)


def camera_breakdown(a: EvalResult, b: EvalResult) -> pd.DataFrame:
    """mAP and rank-1 of the counted queries of each camera: one row per camid, difference = b - a."""
    b, counted = align(a, b), counted_queries(a)
    table = pd.DataFrame({"camid": a.camid, "map_a": average_precision(a), "map_b": average_precision(b)})
    table["difference"] = table["map_b"] - table["map_a"]
    table["rank1_a"], table["rank1_b"] = a.first_match == 1, b.first_match == 1
    groups = table[counted].groupby("camid")
    return pd.concat([groups.size().rename("queries"), groups.mean()], axis=1).reset_index()


def camera_pair_breakdown(a: EvalResult, b: EvalResult, cameras_a: CameraPairs, cameras_b: CameraPairs) -> pd.DataFrame:
    """mAP by camera of the query and camera of the match, over the queries that have one there; difference = b - a.

    Each query is ranked against the crops of one camera alone (`CameraPairs`, in the order of its result's queries).
    """
    _check_cameras(a, b, cameras_a, cameras_b)
    camids = cameras_a.gallery_camid
    aps = {"map_a": cameras_a.ap.ravel(), "map_b": cameras_b.ap[query_order(a, b)].ravel()}
    pairs = {"query_camid": np.repeat(a.camid, len(camids)), "gallery_camid": np.tile(camids, len(a.pid))}
    table = pd.DataFrame(pairs | aps).dropna()
    table["difference"] = table["map_b"] - table["map_a"]
    groups = table.groupby(["query_camid", "gallery_camid"])
    return pd.concat([groups.size().rename("queries"), groups.mean()], axis=1).reset_index()


def camera_matrices(
    a: EvalResult, b: EvalResult, cameras_a: CameraPairs, cameras_b: CameraPairs, metric: str = "mAP"
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """One metric by camera of the query (rows) and of the match (columns): in `a`, in `b`, and b - a."""
    _check_cameras(a, b, cameras_a, cameras_b)
    before, now = cameras_a.matrix(metric), cameras_b.matrix(metric)
    return before, now, now - before


def average_precision(result: EvalResult) -> np.ndarray:
    """AP (Q,) as the mean takes it: 0 for a query without a match that counts, NaN for one that does not."""
    ap = np.where(result.first_match > 0, result.ap, 0.0)
    return np.where(counted_queries(result), ap, np.nan)


def _check_cameras(a: EvalResult, b: EvalResult, cameras_a: CameraPairs, cameras_b: CameraPairs) -> None:
    for result, cameras in ((a, cameras_a), (b, cameras_b)):
        if len(cameras.ap) != len(result.pid):
            raise InputError(
                f"{FILE} is of {len(cameras.ap)} queries and the result beside it of {len(result.pid)}; expected both "
                "of one evaluation: evaluate again"
            )
    if not np.array_equal(cameras_a.gallery_camid, cameras_b.gallery_camid):
        raise InputError(f"the two {FILE} are of other gallery cameras; expected the same gallery: evaluate again")


def _outcome(a: EvalResult, b: EvalResult) -> np.ndarray:
    """One of OUTCOMES for each query (Q,)."""
    right_a, right_b, lonely = a.first_match == 1, b.first_match == 1, ~(a.first_match > 0)
    return np.select([lonely, right_a & right_b, right_a, right_b], [OUTCOMES[-1], *OUTCOMES[:3]], OUTCOMES[3])


def _instead(result: EvalResult) -> dict[str, np.ndarray]:
    """Who stands at rank 1 of the wrong queries: a mask (Q,) for each of INSTEAD that is possible."""
    if result.gallery_pid is None or not result.index.shape[1]:
        return {}
    top = result.index[:, 0]
    wrong = (result.first_match > 1) & (top >= 0)
    pid, camid = result.gallery_pid[top], result.gallery_camid[top]
    has_distractors = DISTRACTOR in result.gallery_pid and DISTRACTOR not in result.pid
    distractor = (pid == DISTRACTOR) & has_distractors
    own = camid == result.camid
    masks = wrong & distractor, wrong & ~distractor & own, wrong & ~distractor & ~own
    return {name: mask for name, mask in zip(INSTEAD, masks, strict=True) if name != INSTEAD[0] or has_distractors}
