"""Measuring in a process of its own, so that what one job leaves behind is not counted for the next (from /proc: Linux)."""

import multiprocessing
import os
import resource
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

SPAWN = multiprocessing.get_context("spawn")


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


def race(prepare: Callable[[int, int], Callable], processes: int) -> float:
    """Seconds from when all of so many processes are ready until the last is done.

    `prepare(number, processes)` is called in each and returns what it has to do, which is done once before the start.
    """
    barrier = SPAWN.Barrier(processes)
    with ProcessPoolExecutor(processes, SPAWN, initializer=_take, initargs=(barrier,)) as pool:
        spans = list(pool.map(_run, [prepare] * processes, range(processes), [processes] * processes))
    return max(end for _, end in spans) - min(start for start, _ in spans)


def _take(barrier) -> None:
    global BARRIER
    BARRIER = barrier


def _run(prepare: Callable, number: int, processes: int) -> tuple[float, float]:
    work = prepare(number, processes)
    work()
    BARRIER.wait()  # each process takes one turn only, as it waits here for the others
    start = time.monotonic()  # one clock for the whole machine
    work()
    return start, time.monotonic()


def drop_cache(files: Sequence[Path]) -> None:
    """Ask the system to forget what it holds of these files in memory; it does if they are on disk and not in use."""
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
