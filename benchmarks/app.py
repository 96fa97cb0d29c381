"""How fast the explorer answers, and how much memory its server takes, with three runs of Market-1501's size.

    python benchmarks/app.py [--out benchmarks/results/app] [--place FOLDER]

Three runs of 3,368 queries and 15,913 gallery crops with 2,048 numbers each are made in FOLDER (1 GB; a temporary one at
first) from random features around 750 people. Measured on the server's side: the script is run by Streamlit's AppTest in
a process of its own, without a browser. A page's time is that of its script, with all that the script reads, computes
and draws.

* first page: the first run of the script, all modules imported and nothing read (the caches are empty)
* query: one click on "Next query", median and slowest of 20, with three runs' lists and thumbnails on the page
* page: changing to a page for the first time, when it reads and computes, and once more
* memory: of the process after all of it (resident, and at its highest)
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from processes import fresh
from report import as_markdown, commit

from lab.machine import cpu_name
from lab.runs import Features, Run

EXPLORER = Path(__file__).parents[1] / "apps" / "explorer.py"
QUERIES, GALLERY, SIZE, PEOPLE, CAMERAS = 3368, 15913, 2048, 750, 6
NOISE = {"first": 3.0, "second": 3.6, "third": 4.2}  # of features around their person's
PICTURES = 400  # different pictures; crops share them by hard links
CLICKS = 20
PAGES = ("rank_lists", "compare", "distances", "embedding", "data", "training", "attention", "search", "overview")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="benchmarks/results/app", help="writes OUT.csv and OUT.md")
    parser.add_argument("--place", help="where the runs are made, and kept for the next time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(options.place or temporary)
        make_runs(place)
        table = fresh(measure, str(place / "runs"))
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(out.with_suffix(".csv"), index=False)
    command = f"python benchmarks/app.py{f' --place {options.place}' if options.place else ''}"
    out.with_suffix(".md").write_text(
        f"# The explorer with three runs of Market-1501's size\n\n{as_markdown(table)}\n\n"
        f"Machine: {cpu_name()}, {os.cpu_count()} cores; {time.strftime('%Y-%m-%d')}; commit {commit()}.\n"
        f"Command: `{command}`. What each row is, is said at the top of benchmarks/app.py.\n"
    )
    print(table.to_string(index=False))


def make_runs(place: Path) -> None:
    """Three evaluated runs with features, camera pairs and distances of pairs; those that are there are kept."""
    from lab.evaluate.evaluate import evaluate_features  # with torch, which the measured process must not have
    from lab.evaluate.settings import EvaluateConfig

    rng = np.random.default_rng(0)
    parts = {"query": _labels(QUERIES, place, "query", rng), "gallery": _labels(GALLERY, place, "gallery", rng)}
    centres = rng.standard_normal((PEOPLE + 1, SIZE)).astype(np.float32)
    for name, noise in NOISE.items():
        run = Run(place / "runs" / name)
        if run.evals():
            continue
        features = {}
        for part, (pid, camid, path) in parts.items():
            values = centres[pid] + noise * rng.standard_normal((len(pid), SIZE), dtype=np.float32)
            values[pid == 0] = rng.standard_normal((int((pid == 0).sum()), SIZE))  # distractors are like nobody
            values /= np.linalg.norm(values, axis=1, keepdims=True)
            features[part] = Features(values, pid, camid, path)
        config = EvaluateConfig(cameras=True, verification=True)
        evaluate_features(run, "market1501", features["query"], features["gallery"], config, progress=False)
        for part, values in features.items():
            run.save_features("market1501", part, values)
        print(f"{run.folder} is made", file=sys.stderr)


def _labels(count: int, place: Path, part: str, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """pid, camid and path of crops whose files are there; the gallery's pid 0 are distractors, as in Market-1501."""
    pid = rng.integers(0 if part == "gallery" else 1, PEOPLE + 1, count)
    if part == "gallery":
        pid[: count // 6] = 0
    camid = rng.integers(1, CAMERAS + 1, count)
    names = [f"{p:04d}_c{c}s1_{number:06d}_00.jpg" for number, (p, c) in enumerate(zip(pid, camid, strict=True))]
    folder = place / "data" / part
    if not folder.is_dir():
        folder.mkdir(parents=True)
        originals = []
        for number in range(PICTURES):
            originals.append(folder / f"original{number}.jpg")
            Image.fromarray(rng.integers(0, 256, (128, 64, 3), np.uint8)).save(originals[-1], quality=60)
        for number, name in enumerate(names):
            os.link(originals[number % PICTURES], folder / name)
    return pid, camid, np.array([str(folder / name) for name in names])


def measure(runs: str) -> pd.DataFrame:
    """All figures, taken in a process that has done nothing else."""
    os.environ["LAB_RUNS"] = runs
    import_all()
    from streamlit.testing.v1 import AppTest

    rows = [{"what": "memory after the imports", "MB": _memory("VmRSS")}]
    app = AppTest.from_file(str(EXPLORER), default_timeout=300)
    rows.append({"what": "first page (overview)", "seconds": _timed(app.run)})
    _check(app)
    for page in PAGES:
        first = _timed(app.switch_page(f"views/{page}.py").run)
        _check(app)
        app.switch_page("views/rank_lists.py").run()
        again = _timed(app.switch_page(f"views/{page}.py").run)
        rows.append({"what": f"page {page}", "seconds": first, "again": again})
        if page == "rank_lists":
            clicks = [_timed(app.button(key="arrow_forward").click().run) for _ in range(CLICKS)]
            _check(app)
            rows.append({"what": "next query", "seconds": statistics.median(clicks), "slowest": max(clicks)})
    rows.append({"what": "memory after all pages", "MB": _memory("VmRSS")})
    rows.append({"what": "memory at its highest", "MB": _memory("VmHWM")})
    table = pd.DataFrame(rows).reindex(columns=["what", "seconds", "again", "slowest", "MB"])
    return table.round({"seconds": 3, "again": 3, "slowest": 3, "MB": 0}).astype(object).fillna("")


def import_all() -> None:
    """What the first page needs of Python's modules: a server has them after its first visitor."""
    import plotly.graph_objects  # noqa: F401
    import scipy.stats  # noqa: F401
    import streamlit.testing.v1  # noqa: F401

    sys.path.insert(0, str(EXPLORER.parent))
    import choices  # noqa: F401
    import parts  # noqa: F401
    import queries  # noqa: F401

    import lab.show.comparison
    import lab.show.curves  # noqa: F401


def _timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _check(app) -> None:
    """A page that failed is no measurement."""
    if app.exception:
        raise RuntimeError(f"the page failed: {app.exception}")


def _memory(name: str) -> float:
    """A figure of /proc/self/status in MB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


if __name__ == "__main__":
    main()
