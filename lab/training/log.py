"""Where the rows of a training go: log.csv, and TensorBoard for those who ask for it."""

import math
from numbers import Real

from lab.distributed import is_first
from lab.errors import InputError
from lab.runs import Run


class TrainingLog:
    """Writes rows to log.csv, and with `tensorboard` their numbers to RUN/tensorboard/; only in the first process.

    `first_step` is how many steps a run that goes on has done: TensorBoard forgets what an earlier attempt wrote about
    later ones. Close it at the end, or use it as a context manager. Raises InputError if TensorBoard is not installed.
    """

    def __init__(self, run: Run, tensorboard: bool = False, first_step: int = 0):
        self.run = run
        self.writer = _writer(run, first_step) if tensorboard and is_first() else None

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def write(self, row: dict) -> None:
        """Add one row; `row["step"]` is where its numbers are drawn."""
        if not is_first():
            return
        self.run.append_log(row)
        if self.writer is None:
            return
        try:
            for name, value in row.items():
                # NaN stands for what was not measured at this step
                if name != "step" and isinstance(value, Real) and math.isfinite(value):
                    self.writer.add_scalar(name, value, row["step"])
            self.writer.flush()  # a run that is killed keeps its curve, as it keeps log.csv
        except OSError as error:
            raise self._cannot_write(error) from error

    def close(self) -> None:
        writer, self.writer = self.writer, None
        if writer is not None:
            try:
                writer.close()
            except OSError as error:
                raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> InputError:
        return InputError(
            f"cannot write {self.run.folder / 'tensorboard'} ({error.strerror or error}); free space there, and run the same "
            "command to go on"
        )


def _writer(run: Run, first_step: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "--tensorboard needs the package tensorboard, which is not installed; install it with "
            "`pip install 'luperson-lab[tensorboard]'`, or leave the option out: log.csv has the same numbers"
        ) from error
    # what is purged begins with this step; a run from the start may write a row of step 0 again
    writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=first_step + 1 if first_step else 0)
    writer.flush()
    return writer
