"""Seconds and memory of evaluation, beside the bare matrix product: python benchmarks/evaluation.py --help

Each job runs in its own process on the same random unit features with people in them, and reports the median of
`--repeats` runs, its ratio to the product that it cannot avoid, and the most memory it held beyond the features.
"""

import argparse
import multiprocessing
import platform
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lab.evaluate.metrics import MOST_ROWS, evaluate_ranking
from lab.evaluate.rerank import rerank_blocks
from lab.runs import Features


def make(file: Path, count: int, size: int, people: int, seed: int) -> None:
    """Noisy copies of `people` centres, so that mAP is neither 0 nor 1."""
    rng = np.random.default_rng(seed)
    pid, camid = rng.integers(0, people, count), rng.integers(0, 6, count)
    values = np.random.default_rng(0).standard_normal((people, size), dtype=np.float32)[pid]
    noise = np.sqrt(np.sqrt(size) / 2.7 - 1)  # cosines of two crops of one person lie 2.7 deviations above the others'
    values += noise * rng.standard_normal((count, size), dtype=np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    Features(values, pid, camid, np.full(count, "")).save(file)


def product(a: np.ndarray, b: np.ndarray) -> None:
    a, b = torch.from_numpy(a), torch.from_numpy(b)
    out = torch.empty(min(len(a), MOST_ROWS), len(b))
    for rows in a.split(MOST_ROWS):
        torch.mm(rows, b.T, out=out[: len(rows)])


def ranking(query: Features, gallery: Features) -> None:
    evaluate_ranking(query, gallery)


def reranking(query: Features, gallery: Features) -> None:
    evaluate_ranking(query, gallery, blocks=rerank_blocks(query.values, gallery.values))


def product_qg(query: Features, gallery: Features) -> None:
    product(query.values, gallery.values)


def product_nn(query: Features, gallery: Features) -> None:
    everyone = np.concatenate([query.values, gallery.values])
    product(everyone, everyone)


JOBS = {
    "product Q x G": (product_qg, None),
    "CMC + mAP + mINP + top 50": (ranking, "product Q x G"),
    "product (Q + G) x (Q + G)": (product_nn, None),
    "the same with re-ranking": (reranking, "product (Q + G) x (Q + G)"),
}


def measure(job: str, folder: str, threads: int, repeats: int) -> tuple[float, float, float]:
    """Seconds, seconds of processor time, and GB beyond the features, in the process that calls it."""
    torch.set_num_threads(threads)
    query, gallery = (Features.load(Path(folder) / f"{part}.npz") for part in ("query", "gallery"))
    torch.mm(torch.ones(64, 64), torch.ones(64, 64))  # the libraries' own start-up memory
    before = memory("VmRSS")
    seconds, processor = [], []
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        JOBS[job][0](query, gallery)
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    return statistics.median(seconds), statistics.median(processor), memory("VmHWM") - before


def memory(entry: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process in GB, from Linux; getrusage's peak would include the parent's."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(entry))
    return int(line.split()[1]) * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--queries", type=int, default=3368, help="the defaults are Market-1501's size")
    parser.add_argument("--gallery", type=int, default=15913)
    parser.add_argument("--size", type=int, default=2048, help="of a feature")
    parser.add_argument("--people", type=int, default=750)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument(
        "--jobs", nargs="*", default=list(JOBS), choices=list(JOBS), metavar="JOB", help=f"of {[*JOBS]}"
    )
    options = parser.parse_args()
    rows, context = {}, multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "query.npz", options.queries, options.size, options.people, 1)
        make(Path(folder) / "gallery.npz", options.gallery, options.size, options.people, 2)
        for job in options.jobs:
            with ProcessPoolExecutor(1, mp_context=context) as process:
                rows[job] = process.submit(measure, job, folder, options.threads, options.repeats).result()
    table = pd.DataFrame(rows, index=["seconds", "CPU seconds", "GB beyond features"]).T
    table["x product"] = [
        rows[job][0] / rows[JOBS[job][1]][0] if JOBS[job][1] in rows else float("nan") for job in table.index
    ]
    print(f"{options.queries} x {options.gallery} x {options.size}, {options.threads} threads, {platform.processor()}")
    print(table.to_string(float_format=lambda value: f"{value:.2f}"))


if __name__ == "__main__":
    main()
