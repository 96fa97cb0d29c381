"""The state of a training on disk: written so that a kill at any moment, a full disk or a flipped bit costs minutes.

A checkpoint is read back before it takes the place of the one before it, which stays under another name. Checksums are
looked at on purpose: `torch.load` reads a tensor with a flipped bit without a word.
"""

import errno
import os
import random
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from lab.distributed import first_process_first, is_first, largest, rank
from lab.errors import InputError
from lab.files import replacing
from lab.runs import Run
from lab.weights import read_weights

ENTRIES = ("model", "optimizer", "step", "epoch", "config")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Checkpoints:
    """checkpoint.pt of a run, and the `keep` ones before it as checkpoint-<step>.pt.

    `step` is that of the last one that was saved or loaded; `minutes` is the time between two of them (0: always due).
    The run has to be locked by this process (`Run.locked`).
    """

    def __init__(self, run: Run, keep: int = 1, minutes: float = 5.0):
        if keep < 0 or minutes < 0:
            raise InputError(
                f"{keep} older checkpoints were to be kept and one saved every {minutes} minutes; both are 0 or more"
            )
        self.run, self.keep, self.minutes = run, keep, minutes
        self.step: int | None = None
        self._since = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to save; the first process's answer counts, as it alone writes."""
        return time.monotonic() - self._since >= 60 * self.minutes

    def save(self, content: dict) -> None:
        """Write checkpoint.pt in the first process; `content` holds ENTRIES and whatever else is needed to go on.

        Raises InputError if it cannot be written, as on a full disk: the one before it stays.
        """
        if is_first():
            with self._explain(f"the checkpoint of step {content['step']} was written"):
                self._write(content)
        self.step, self._since = content["step"], time.monotonic()

    def load(self) -> dict | None:
        """The newest good checkpoint, on the CPU; None if there is none at all. All processes call it.

        A damaged one is named on stderr and put aside as *.damaged.pt, and the newest good older one takes its place.
        Raises InputError if all are damaged; then all stay where they are.
        """
        with first_process_first():
            if is_first():
                with self._explain("the checkpoints were looked at"):
                    content = self._newest_good()
            else:
                content = _read(self.run.checkpoint) if self.run.checkpoint.exists() else None
        self.step, self._since = content and content["step"], time.monotonic()
        self._check_same_everywhere()
        return content

    def _write(self, content: dict) -> None:
        if self.step is None and (before := self._newest_good()):
            self.step = before["step"]
        with replacing(self.run.checkpoint) as temporary:
            # a file of Python's: torch's own does not say what went wrong when the disk is full
            with open(temporary, "wb") as stream:
                torch.save(content, stream)
                stream.flush()
                os.fsync(stream.fileno())
            _read(temporary)
            if self.keep and self.step not in (None, content["step"]):
                _link(self.run.checkpoint, self.run.folder / f"checkpoint-{self.step:09d}.pt")
        _sync_folder(self.run.folder)
        # later steps than this one are of an attempt that was given up
        older = [file for file, step in self.run.older_checkpoints().items() if step < content["step"]]
        for file in self.run.older_checkpoints().keys() - older[: self.keep]:
            file.unlink()

    def _newest_good(self) -> dict | None:
        """The content of the newest good checkpoint, which is checkpoint.pt afterwards; None if there is none at all."""
        latest, damaged = self.run.checkpoint, {}
        for file in [latest] * latest.exists() + list(self.run.older_checkpoints()):
            try:
                content = _read(file)
            except InputError as error:
                damaged[file] = str(error)
                continue
            self._put_aside(damaged, f"going on from {file.name} of step {content['step']}")
            if file != latest:
                _link(file, latest)
                _sync_folder(self.run.folder)
            return content
        if damaged:
            raise InputError(
                f"no checkpoint of {self.run.folder} is good ({'; '.join(damaged.values())}); restore one from a copy, or "
                "delete them to train from the start"
            )
        return None

    def _put_aside(self, damaged: dict[Path, str], instead: str) -> None:
        for file, sentence in damaged.items():
            aside = file.with_suffix(".damaged.pt")
            file.replace(aside)
            print(f"warning: {sentence}; {instead}; it is kept as {aside.name}", file=sys.stderr)

    def _check_same_everywhere(self) -> None:
        step = -1 if self.step is None else self.step
        furthest = largest(float(step), torch.device("cpu"))
        if furthest != step:
            raise InputError(
                f"process {rank()} finds no checkpoint of step {furthest:.0f} in {self.run.folder}, and another one does; "
                "give --out a folder that all machines share"
            )

    @contextmanager
    def _explain(self, doing: str) -> Iterator[None]:
        """Turn an error of the file system into a sentence that says what is left and what to do."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            cause = _os_error(error)
            if cause is None:
                raise
            kept = next((file for file in (self.run.checkpoint, *self.run.older_checkpoints()) if file.exists()), None)
            left = "no checkpoint was written before"
            if kept:
                left = f"the last good one is {kept}" + (f" of step {self.step}" if self.step is not None else "")
            mend = "free space there" if cause.errno in FULL else "mend that"
            raise InputError(
                f"{cause.strerror or cause} while {doing} in {self.run.folder}; {left}; {mend}, and run the same command "
                "to go on"
            ) from error


def random_states() -> dict:
    """The states of the generators of torch, numpy and Python, as tensors and numbers that are read without pickled code."""
    _, keys, position, has_gauss, gauss = np.random.get_state()
    version, words, python_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": {
            "keys": torch.from_numpy(keys.astype(np.int64)),  # torch has no uint32 to save
            "position": int(position),
            "has_gauss": int(has_gauss),
            "gauss": float(gauss),
        },
        "python": {"version": version, "words": torch.tensor(words), "gauss": python_gauss},
    }


def set_random_states(states: dict) -> None:
    """Put the generators where `random_states` found them; GPUs that were not there then are left as they are."""
    torch.set_rng_state(states["torch"])
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for device, state in zip(range(count), states["cuda"], strict=False):
        torch.cuda.set_rng_state(state, device)
    saved = states["numpy"]
    keys = saved["keys"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, saved["position"], saved["has_gauss"], saved["gauss"]))
    saved = states["python"]
    random.setstate((saved["version"], tuple(saved["words"].tolist()), saved["gauss"]))


def _read(file: Path) -> dict:
    """The content of a checkpoint if every byte that counts is as it was written; else InputError says what is wrong."""
    with open(file, "rb") as stream:
        try:
            with zipfile.ZipFile(stream) as stored:
                wrong = stored.testzip()
        except Exception as error:  # flipped bits make zipfile stumble in a dozen ways
            what = "it is cut short, or no checkpoint" if stream.seek(0, os.SEEK_END) else "it is empty"
            raise InputError(f"{file} is damaged: {what} ({error})") from error
    if wrong is not None:
        raise InputError(f"{file} is damaged: the checksum of its part {wrong} is wrong")
    content = read_weights(file)
    missing = [name for name in ENTRIES if name not in content]
    if missing or not isinstance(content["step"], int):
        raise InputError(
            f"{file} is no checkpoint of a training: it has no {', '.join(missing) or 'number of its step'}"
        )
    return content


def _link(file: Path, name: Path) -> None:
    """Give a file a second name, which another file may have had; where file systems have no links, its only one."""
    name.unlink(missing_ok=True)
    try:
        os.link(file, name)
    except OSError:
        file.rename(name)


def _sync_folder(folder: Path) -> None:
    """A rename is safe from a power cut once the folder is synced."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of file systems that do not sync folders
            raise
    finally:
        os.close(handle)


def _os_error(error: BaseException | None) -> OSError | None:
    """The file system's complaint, which may hide behind torch's."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error
