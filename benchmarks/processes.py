"""Measuring jobs: in turns, side by side in several processes, and their memory in a process of their own (/proc: Linux)."""

import multiprocessing
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd

SPAWN = multiprocessing.get_context("spawn")


def take_turns(
    jobs: dict[str, Callable[[Path], int]],
    rounds: int,
    place: Path,
    check: Callable[[Path], None] = lambda folder: None,
) -> pd.DataFrame:
    """One row per round and job: seconds, CPU seconds, and the number of crops that the job says it did.

    Each job has a new folder FOLDER/NAME to write to, and after each round `check(FOLDER)` may look at them all.
    """
    turns = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory(dir=place) as folder:
            for name, job in jobs.items():
                (Path(folder) / name).mkdir()
                start, used = time.perf_counter(), cpu_seconds()
                crops = job(Path(folder) / name)
                seconds, used = time.perf_counter() - start, cpu_seconds() - used
                turns.append({"round": number, "job": name, "seconds": seconds, "CPU seconds": used, "crops": crops})
                print(f"round {number + 1}: {name} {seconds:.3f} s", file=sys.stderr)
            check(Path(folder))
    return pd.DataFrame(turns)


def medians(turns: pd.DataFrame, beside: str) -> pd.DataFrame:
    """One row per job: medians over the rounds, and how many times as long it takes as the job `beside` in the same round."""
    seconds, used = (turns.pivot(index="round", columns="job", values=value) for value in ("seconds", "CPU seconds"))
    rows = []
    for name, own in turns.groupby("job", sort=False):
        row = {"job": name, "seconds": own["seconds"].median()}
        row |= {"fastest": own["seconds"].min(), "slowest": own["seconds"].max()}
        row |= {"CPU seconds": own["CPU seconds"].median(), "crops/s": (own["crops"] / own["seconds"]).median()}
        row |= {f"x {beside}": (seconds[name] / seconds[beside]).median()}
        rows.append(row | {"x by CPU seconds": (used[name] / used[beside]).median()})
    return pd.DataFrame(rows)


def fresh(work: Callable, *arguments):
    """Call a function in a new process."""
    with ProcessPoolExecutor(1, SPAWN) as pool:
        return pool.submit(work, *arguments).result()


class Growth:
    """The memory that a block takes beyond what the process had before, in MB (10^6 bytes), at its highest.

    `so_far()` gives "MB", Linux's own peak, and, looked at every few milliseconds, "anonymous MB", which is the process's
    own, and "mapped MB", pages of files, which all processes share and the system takes back when it needs them.
    """

    def __enter__(self) -> "Growth":
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again
        self.before, self.most = _memory(), _memory()
        self.ended = threading.Event()
        self.watcher = threading.Thread(target=self._watch)
        self.watcher.start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        self.watcher.join()

    def so_far(self) -> dict[str, float]:
        self._look()
        return {
            "MB": self.most["VmHWM"] - self.before["VmRSS"],
            "anonymous MB": self.most["RssAnon"] - self.before["RssAnon"],
            "mapped MB": self.most["RssFile"] - self.before["RssFile"],
        }

    def _watch(self) -> None:
        while not self.ended.wait(0.01):
            self._look()

    def _look(self) -> None:
        self.most = {name: max(value, self.most[name]) for name, value in _memory().items()}


def _memory() -> dict[str, float]:
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return {line[0][:-1]: int(line[1]) * 1024 / 1e6 for line in lines if line[0].startswith(("VmHWM", "VmRSS", "Rss"))}


def cpu_seconds() -> float:
    """Of this process and of all that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def race(prepare: Callable[[int, int], Callable], processes: int) -> tuple[float, float]:
    """Seconds from when all of so many processes are ready until the last is done, and CPU seconds of all in that time.

    `prepare(number, processes)` is called in each and returns what it has to do, which is done once before the start.
    """
    barrier = SPAWN.Barrier(processes)
    with ProcessPoolExecutor(processes, SPAWN, initializer=_take, initargs=(barrier,)) as pool:
        spans = list(pool.map(_run, [prepare] * processes, range(processes), [processes] * processes))
    start, end, used = zip(*spans, strict=True)
    return max(end) - min(start), sum(used)


def _take(barrier) -> None:
    global BARRIER
    BARRIER = barrier


def _run(prepare: Callable, number: int, processes: int) -> tuple[float, float, float]:
    work = prepare(number, processes)
    work()
    BARRIER.wait()  # each process takes one turn only, as it waits here for the others
    start, used = time.monotonic(), time.process_time()  # one clock for the whole machine
    work()
    return start, time.monotonic(), time.process_time() - used


def forget(files: Sequence[Path]) -> None:
    """Ask the system to forget what it holds of these files in memory; it does if they are on disk and not in use."""
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
