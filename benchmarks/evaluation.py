"""Seconds and memory of evaluation, beside the bare matrix product and beside plain numpy.

    python benchmarks/evaluation.py --preset market --out benchmarks/results/evaluation-market

Random unit features with people in them. Every job has a process of its own, which stays alive; the jobs take turns, round
by round, because machines are shared and their speed drifts: what is compared is measured within one round. Reported are
medians over the rounds, ratios within a round, and the most memory that a job held beyond the features (from /proc:
Linux only). The jobs are in jobs.py, plain numpy's way in plain.py.
"""

import argparse
import cProfile
import io
import multiprocessing
import os
import pstats
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jobs import JOBS, PIECE, Task, make
from report import as_markdown

from lab.machine import cpu_name
from lab.runs import Features, describe

PRESETS = {  # queries, gallery, size of a feature, people, whether the gallery is evaluated from disk
    "market": (3368, 15913, 2048, 750, False),  # Market-1501
    "msmt17": (11659, 82161, 2048, 3060, False),  # MSMT17
    "million": (1000, 1_000_000, 256, 50_000, True),
    "small": (400, 3000, 128, 150, False),  # whether the benchmark works
}
MOST = 0.9  # of the memory that is free: jobs that need more are not tried
SHARED = 0.25  # of it: jobs that need more run alone, after the others, once


class Worker:
    """A process that holds the features and measures one job, again and again."""

    def __init__(self, name: str, folder: str, options: argparse.Namespace):
        context = multiprocessing.get_context("spawn")
        self.name, self.pool = name, ProcessPoolExecutor(1, context, initializer=_open, initargs=(folder, options))

    def ask(self, what: Callable, *arguments):
        return self.pool.submit(what, *arguments).result()

    def close(self) -> None:
        self.pool.shutdown()


def _open(folder: str, options: argparse.Namespace) -> None:
    """In the worker: load the features, and forget the memory that this took at its peak."""
    global TASK, BEFORE, LAST
    torch.set_num_threads(options.threads)
    torch.set_float32_matmul_precision("high" if options.precision == "tf32" else "highest")
    query = Features.load(Path(folder) / "query.npz", on_disk=False)
    gallery = Features.load(Path(folder) / "gallery.npz", on_disk=options.on_disk)
    TASK, LAST = Task(query, gallery, torch.device(options.device), options.memory_gb, options.precision), None
    torch.mm(*[torch.ones(64, 64, device=options.device)] * 2)  # the libraries' own start-up memory
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again
    if TASK.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    BEFORE = memory("VmRSS")


def _measure(name: str) -> dict:
    """In the worker: one turn of a job."""
    global LAST
    LAST, given = None, JOBS[name].given(TASK)
    _finish()
    start, used = time.perf_counter(), time.process_time()
    LAST = JOBS[name].run(TASK, *given)
    _finish()
    seconds, used = time.perf_counter() - start, time.process_time() - used
    gpu = torch.cuda.max_memory_allocated() / 1e9 if TASK.device.type == "cuda" else 0.0
    return {"job": name, "seconds": seconds, "CPU seconds": used, "GB": memory("VmHWM") - BEFORE, "GPU GB": gpu}


def _finish() -> None:
    """Wait for the GPU, which works on while Python goes ahead."""
    if TASK.device.type == "cuda":
        torch.cuda.synchronize()


def _check(name: str) -> str:
    """In the worker: what the last turn's outcome is worth beside the lab's."""
    return JOBS[name].check(TASK, LAST)


def _peak() -> dict[str, float]:
    """In the worker: FLOP/s of the fastest of some large square products, in float32 and, on a GPU, in TF32."""
    gpu, found = TASK.device.type == "cuda", {}
    a = torch.randn(*[8192 if gpu else 2048] * 2, device=TASK.device)
    for name, precision in {"float32": "highest", "TF32": "high"}.items() if gpu else [("float32", "highest")]:
        torch.set_float32_matmul_precision(precision)
        seconds = []
        for _ in range(10):
            _finish()
            start = time.perf_counter()
            torch.mm(a, a)
            _finish()
            seconds.append(time.perf_counter() - start)
        found[name] = 2 * len(a) ** 3 / min(seconds)
    return found


def _profile(name: str) -> str:
    """In the worker: the operations and the functions that a job's time goes to."""
    run, given = JOBS[name].run, JOBS[name].given(TASK)
    with torch.profiler.profile(acc_events=True) as operations:
        run(TASK, *given)
    order = f"self_{TASK.device.type}_time_total"
    functions, text = cProfile.Profile(), io.StringIO()
    functions.runcall(run, TASK, *given)
    pstats.Stats(functions, stream=text).strip_dirs().sort_stats("tottime").print_stats(25)
    table = operations.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=40)
    return f"{name}: operations, by their own time\n{table}\n\n{name}: functions, by their own time\n{text.getvalue()}"


def memory(entry: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process in GB, from Linux; getrusage's peak would include the parent's."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(entry))
    return int(line.split()[1]) * 1024 / 1e9


def free_memory() -> float:
    """Bytes that the machine can give."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024


def main() -> None:
    options = parse()
    os.environ.update({name: str(options.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")})
    profile = ""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        make(Path(folder) / "query.npz", options.queries, options.size, options.people, 1)
        make(Path(folder) / "gallery.npz", options.gallery, options.size, options.people, 2)
        together, alone, notes = plan(options)
        turns, peaks, told = run_rounds(together, alone, folder, options)
        if options.profile:
            worker = Worker("profile", folder, options)
            profile = worker.ask(_profile, options.profile)
            worker.close()
    table = summarise(pd.DataFrame(turns), peaks, options)
    text = describe_run(table, notes + told, peaks, options)
    print(f"\n{text}\n{profile}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(f"{options.out}.csv", index_label="job", float_format="%.4g")
        Path(f"{options.out}.md").write_text(text)
        if profile:
            Path(f"{options.out}-profile.txt").write_text(profile)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="market", help="sizes; each can be set by itself")
    for name in ("queries", "gallery", "size", "people"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--on-disk", action=argparse.BooleanOptionalAction, help="evaluate the gallery from disk")
    parser.add_argument("--jobs", nargs="*", choices=JOBS, metavar="JOB", help=f"of {', '.join(JOBS)}")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=PIECE, default="cpu")
    parser.add_argument("--precision", choices=("float32", "tf32", "bfloat16"), default="float32")
    parser.add_argument("--memory-gb", type=float, default=0.25, help="of distances held at a time (default: 0.25)")
    parser.add_argument("--folder", type=Path, help="where the features are written meanwhile (default: /tmp)")
    parser.add_argument("--out", type=Path, help="write OUT.csv and OUT.md, and OUT-profile.txt")
    parser.add_argument(
        "--profile", nargs="?", const="ranking", choices=JOBS, metavar="JOB", help="what its time goes to (ranking's)"
    )
    options = parser.parse_args()
    for name, value in zip(("queries", "gallery", "size", "people", "on_disk"), PRESETS[options.preset], strict=True):
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.jobs is None:
        options.jobs = [name for name, job in JOBS.items() if options.preset in job.on]
        options.jobs += ["upload"] if options.device == "cuda" else []
    return options


def plan(options: argparse.Namespace) -> tuple[list[str], list[str], list[str]]:
    """Which jobs take turns, which run alone afterwards, and why others do not run."""
    together, alone, notes = [], [], []
    free = free_memory()
    for name in options.jobs:
        needs = JOBS[name].needs(options.queries, options.gallery, options.size)
        if needs > MOST * free:
            notes.append(f"{name} was not run: it needs about {needs / 1e9:.0f} GB and {free / 1e9:.0f} GB are free")
        else:
            (alone if needs > SHARED * free else together).append(name)
    return together, alone, notes


def run_rounds(
    together: list[str], alone: list[str], folder: str, options: argparse.Namespace
) -> tuple[list[dict], dict[str, float], list[str]]:
    """All turns of all jobs, the best FLOP/s of a plain product in any round, and what the checks say."""
    workers = {name: Worker(name, folder, options) for name in together}
    calibration = Worker("calibration", folder, options)
    turns, peaks, told = [], [], []

    def turn(worker: Worker, number: int) -> None:
        turns.append({"round": number, **worker.ask(_measure, worker.name)})
        print(f"round {number + 1}: {worker.name} {turns[-1]['seconds']:.3f} s", file=sys.stderr)

    def check(worker: Worker) -> None:
        if JOBS[worker.name].check:
            told.append(f"{worker.name}: {worker.ask(_check, worker.name)}")

    for number in range(options.repeats):
        peaks.append(calibration.ask(_peak))
        for worker in workers.values():
            turn(worker, number)
    for worker in workers.values():
        check(worker)
    for number, name in enumerate(alone, options.repeats):
        worker = Worker(name, folder, options)
        for one in (worker, workers.get(JOBS[name].product), workers.get(JOBS[name].rival)):
            if one is not None:
                turn(one, number)
        check(worker)
        worker.close()
    for worker in (calibration, *workers.values()):
        worker.close()
    return turns, {name: max(peak[name] for peak in peaks) for name in peaks[0]}, told


def summarise(turns: pd.DataFrame, peaks: dict[str, float], options: argparse.Namespace) -> pd.DataFrame:
    """One row per job: medians, the largest memory, and ratios to what was measured in the same rounds."""
    seconds = turns.pivot(index="round", columns="job", values="seconds")
    flop = {name: 2.0 * options.queries * options.gallery * options.size for name in ("product", "ranking")}
    flop["product-all"] = 2.0 * (options.queries + options.gallery) ** 2 * options.size
    rows = {}
    for name in dict.fromkeys(turns["job"]):
        job, own = JOBS[name], turns[turns["job"] == name]
        row = {"what": job.about, "seconds": own["seconds"].median()}
        row |= {"fastest": own["seconds"].min(), "slowest": own["seconds"].max(), "rounds": len(own)}
        row["CPU seconds"] = own["CPU seconds"].median()
        for label, other in (("x product", job.product), ("x lab", job.rival)):
            row[label] = (seconds[name] / seconds[other]).median() if other in seconds else np.nan
        row["GB beyond features"] = own["GB"].max()
        if options.device == "cuda":
            row["GPU GB"] = own["GPU GB"].max()
        speed = flop.get(name, np.nan) / row["seconds"]
        row["TFLOP/s"] = speed / 1e12
        row |= {f"% of {peak} peak": 100 * speed / value for peak, value in peaks.items()}
        rows[name] = row
    return pd.DataFrame(rows).T.infer_objects()


def describe_run(table: pd.DataFrame, notes: list[str], peaks: dict[str, float], options: argparse.Namespace) -> str:
    """The table in Markdown, with what is needed to measure again."""
    shown = table.reset_index(names="job").map(lambda value: f"{value:.3g}" if isinstance(value, float) else value)
    place = "on disk" if options.on_disk else "in memory"
    gpu = f", {torch.cuda.get_device_name()}" if options.device == "cuda" else ""
    machine = f"{cpu_name()}, {options.threads} threads, {torch.backends.cpu.get_cpu_capability()}{gpu}"
    lines = [
        f"# Evaluation: {options.queries} queries x {options.gallery} gallery crops x {options.size} ({options.preset})",
        "",
        as_markdown(shown.replace("nan", "")),
        "",
        *(f"- {note}" for note in notes),
        *(["- products start from features on the GPU; other jobs copy them there first (upload)"] if gpu else []),
        f"- gallery {place}, {options.people} people, {options.precision} products, {options.memory_gb} GB of distances",
        f"- peak of a matrix product: {', '.join(f'{v / 1e12:.3g} TFLOP/s {k}' for k, v in peaks.items())}",
        "- ratios are medians of the ratios within a round; GB is the most memory held beyond the features",
        f"- machine: {machine}",
        f"- torch {torch.__version__}, numpy {np.__version__}, {time.strftime('%Y-%m-%d')}",
        f"- commit {describe('benchmark', {})['commit']}, command: `python {shlex.join(sys.argv)}`",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
