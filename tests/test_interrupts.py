"""Being asked to stop: the step is finished, every process stops at the same one, and workers go on until then."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import torch

from lab.distributed import processes, rank
from lab.errors import Stopped
from lab.training.interrupts import Interrupts

FORK = multiprocessing.get_context("fork")  # a process of its own that need not load torch again
BOTH = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture(autouse=True)
def handlers():
    """Python's usual ones, also where the tests were started with SIGINT ignored."""
    before = {number: signal.getsignal(number) for number in BOTH}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def installed() -> list:
    return [signal.getsignal(number) for number in BOTH]


def test_nobody_asks_and_the_handlers_come_back():
    before = installed()
    with Interrupts() as interrupts:
        assert not interrupts.asked()
        assert installed() != before
    assert installed() == before

    def fails():
        with Interrupts():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert installed() == before


def test_sigterm_is_a_note_and_no_failure(capfd):
    with Interrupts() as interrupts:
        for _ in range(3):  # impatience changes nothing
            os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.asked()
        stopped = interrupts.stopped(7)
    assert isinstance(stopped, Stopped)
    assert stopped.signal == signal.SIGTERM
    assert str(stopped) == ("stopped by SIGTERM after step 7; the checkpoint is written: run the same command to go on")
    assert capfd.readouterr().err == ""


def test_the_first_ctrl_c_is_a_note_and_the_second_stops_at_once(capfd):
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.asked()
        stopped = interrupts.stopped(7)
        assert isinstance(stopped, KeyboardInterrupt)
        assert str(stopped).startswith("stopped by SIGINT after step 7; the checkpoint is written")
        assert (
            capfd.readouterr().err == "\nstopping after this step; press Ctrl-C again to stop at once, without saving\n"
        )
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_that_was_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        assert not interrupts.asked()
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.asked()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_in_another_thread_it_changes_nothing():
    before, found = installed(), []

    def train():
        with Interrupts() as interrupts:
            found.append((interrupts.asked(), installed()))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert found == [(False, before)]


def train_in_two(number: int, port: int, ready, answers) -> None:
    os.environ |= {"RANK": str(number), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.cuda.is_available = lambda: False  # a process that was forked could not use it
    with processes(), Interrupts() as interrupts:
        step = 0
        while not interrupts.asked():
            step += 1
            time.sleep(0.01 * (1 + rank()))
            if step == 3:
                ready.put(number)
        answers.put((number, step, type(interrupts.stopped(step)).__name__))


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        ([(1, signal.SIGTERM)], "Stopped"),
        ([(0, signal.SIGINT)], "KeyboardInterrupt"),
        ([(0, signal.SIGTERM), (1, signal.SIGTERM)], "Stopped"),
    ],
)
def test_all_processes_stop_at_the_same_step_for_the_same_reason(sent, kind):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    ready, answers = FORK.SimpleQueue(), FORK.SimpleQueue()
    jobs = [FORK.Process(target=train_in_two, args=(number, port, ready, answers)) for number in range(2)]
    for job in jobs:
        job.start()
    for _ in jobs:
        ready.get()
    for number, asked in sent:
        os.kill(jobs[number].pid, asked)
    for job in jobs:
        job.join(60)
    assert [job.exitcode for job in jobs] == [0, 0]
    (_, steps, first), (_, other_steps, second) = sorted(answers.get() for _ in jobs)
    assert steps == other_steps
    assert (first, second) == (kind, kind)


LOOP = """
import os, signal, sys, time
import torch
from torch.utils.data import DataLoader, Dataset
from lab.errors import Stopped
from lab.training.interrupts import Interrupts, only_the_parent_stops

class Slow(Dataset):
    def __len__(self):
        return 10**6
    def __getitem__(self, index):
        time.sleep(0.02)
        return torch.tensor([index, os.getpid()])

signal.signal(signal.SIGINT, signal.default_int_handler)
with Interrupts() as interrupts:
    workers = set()
    try:
        for step, batch in enumerate(DataLoader(Slow(), 2, num_workers=2, worker_init_fn=only_the_parent_stops)):
            workers |= set(batch[:, 1].tolist())
            if step == 3:
                print(*workers, flush=True)
            if interrupts.asked() and step > 10:  # some steps more: they still need the workers
                raise interrupts.stopped(step)
    except (Stopped, KeyboardInterrupt) as stop:
        print(type(stop).__name__, flush=True)
"""


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, "Stopped"), (signal.SIGINT, "KeyboardInterrupt")])
def test_a_signal_to_the_whole_group_leaves_the_workers_at_work(number, kind):
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    workers = process.stdout.readline().split()
    assert len(workers) == 2
    os.killpg(process.pid, number)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert said.split() == [kind]
    assert "Traceback" not in errors
    with pytest.raises(ProcessLookupError):  # no worker is left in the group
        os.killpg(process.pid, 0)
