"""Stopping on request: a signal asks, the loop finishes its step, saves and ends; all processes at the same step.

Slurm sends SIGTERM before it takes the machine away, Ctrl-C sends SIGINT.
"""

import os
import signal
import threading
from contextlib import suppress
from types import FrameType

import torch

from lab.distributed import is_first, largest
from lab.errors import Stopped

ASKING = (signal.SIGTERM, signal.SIGINT)
NOTE = b"\nstopping after this step; press Ctrl-C again to stop at once, without saving\n"


class Interrupts:
    """Within its block SIGTERM and SIGINT (Ctrl-C) only leave a note, and a second SIGINT stops at once.

    Signals are a matter of the main thread; in another one the block changes nothing, and nobody asks. A signal that
    was ignored before, as SIGINT is behind nohup and &, stays ignored.
    """

    def __init__(self):
        self.signal: int | None = None  # the one that this process got
        self._agreed: int | None = None  # the one that any process got
        self._before: dict = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in ASKING:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: C code had installed one
        self._before = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGINT and is_first():
            # not print: if the signal came while something was printed, Python refuses to print within
            with suppress(OSError):  # a terminal that is gone
                os.write(2, NOTE)
        self.signal = number

    def asked(self) -> bool:
        """Whether any process was asked to stop; every process calls it after every step and gets the same answer."""
        self._agreed = int(largest(float(self.signal or 0), torch.device("cpu"))) or None
        return self._agreed is not None

    def stopped(self, step: int) -> BaseException:
        """What to raise once everything is saved after `step`: KeyboardInterrupt for Ctrl-C, else Stopped."""
        number = signal.Signals(self._agreed or self.signal or signal.SIGTERM)
        sentence = (
            f"stopped by {number.name} after step {step}; the checkpoint is written: run the same command to go on"
        )
        return KeyboardInterrupt(sentence) if number == signal.SIGINT else Stopped(sentence, number)


def only_the_parent_stops(_worker: int) -> None:
    """For `worker_init_fn` of a DataLoader: signals often go to all processes, and the loop still needs its batches.

    A worker takes SIGTERM from the process that it reads for and from no other. Where Python cannot say who sent a
    signal (macOS), SIGTERM ends it as it would without this.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # threads that start from here on block it too
        threading.Thread(target=_end_when_told_by, args=(os.getppid(),), daemon=True).start()


def _end_when_told_by(parent: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)
