"""Is a training still a training? Means for log.csv, and the moments when they say that something is wrong.

Legend: B projections in a batch, C their size, K keys in the queue.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from lab.distributed import mean, world_size
from lab.errors import InputError
from lab.runs import Run

EXPLODED = 4.0  # times the loss of the run's first row
GRACE = 200  # steps in which nothing is reported: all runs are at chance in the first 50, and tell random keys from real ones
WINDOW = 5  # rows that are judged together: one of 64 images at chance has luck now and then
COLLAPSED_STD = 0.05  # two crops have a cosine of 1 - std^2, here 0.9975; untrained 0.55, short runs 0.2 or more
COLLAPSED_UNIFORMITY = -4 * COLLAPSED_STD**2  # the same: log mean exp(-2 d^2), d^2 = 2 std^2; untrained -1.2
RECOVERED = 2 * WINDOW  # rows without a sign of it; a few good rows lift the mean of a window, and that is no recovery
NEAR_CHANCE = 3.0  # times the share that guessing would get
CHANCE_LOSS_MARGIN = 0.05  # nats below log(K+1): the own key gets 5 % more than its share, which is nothing learned
JUDGED = ("accuracy", "batch_accuracy", "loss", "chance_loss", "feature_std", "uniformity")  # columns of log.csv
AGE_ACCURACY = 0.1  # least contrastive accuracy that is suspicious; people are found later and more slowly
AGE_RATIO = 10.0  # accuracy / batch_accuracy; below 1 for people alone, as K > B, and up to 3 when both are told apart

# how CUDA and its libraries, which get memory past torch's allocator, say that there is none
LIBRARY_FULL = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


class Meter:
    """Means of values over the steps between two rows of log.csv, and how fast these steps were.

    `names` are the values of a step, `batch_size` is that of the whole job. Nothing is looked at before a row is due, so
    that a GPU need not stop at every step. Means are taken in float64, and come out the same if a run stops in between.
    """

    def __init__(self, run: Run, names: Sequence[str], batch_size: int):
        self.run, self.names, self.batch_size = run, tuple(names), batch_size
        self.ready = torch.empty(0, len(self.names), dtype=torch.float64)  # on the CPU, means over all processes
        self.waiting: list[Tensor] = []  # of this process, one (names,) per step, where it was computed
        self.seconds = 0.0  # of training since the last row, until `started`, which is None in a pause
        self.started: float | None = time.monotonic()

    def start(self) -> None:
        """What was done until now was no training."""
        self.started = time.monotonic()

    def add(self, *values: Tensor) -> None:
        """Keep what a step measured: a tensor without dimensions for every name."""
        self.waiting.append(torch.stack([value.detach() for value in values]))

    def read(self, step: int) -> dict[str, float]:
        """The means over the steps since the last call and over all processes, and "images_per_second".

        `step` is the number of steps done. All processes call it. Raises InputError that names the first step with a value
        that is not finite.
        """
        self._collect()
        values, self.ready = self.ready, self.ready[:0]
        finite = values.isfinite()
        if not finite.all():
            row = int((~finite.all(dim=1)).int().argmax())
            column = int((~finite[row]).int().argmax())
            name, value = self.names[column], values[row, column].item()
            raise not_finite(self.run, f"the {name} is {value}", step - len(values) + 1 + row)
        seconds = self._seconds()
        self.seconds, self.started = 0.0, self.started and time.monotonic()
        means = dict(zip(self.names, values.mean(dim=0).tolist(), strict=True))
        return means | {"images_per_second": len(values) * self.batch_size / seconds}

    @contextmanager
    def pause(self) -> Iterator[None]:
        """A probe or a checkpoint: its time is not training time."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # steps that were sent to the GPU are training
        self.seconds, self.started = self._seconds(), None
        try:
            yield
        finally:
            self.started = time.monotonic()

    def state_dict(self) -> dict:
        """The steps of a row that is not full yet. All processes call it, as their values are averaged."""
        self._collect()
        # after a full row nothing of the clock is kept, so that the same training leaves the same checkpoint
        return {"values": self.ready.clone(), "seconds": self._seconds() if len(self.ready) else 0.0}

    def load_state_dict(self, state: dict) -> None:
        self.ready, self.waiting = state["values"].clone(), []
        self.seconds, self.started = state["seconds"], time.monotonic()

    def _seconds(self) -> float:
        return self.seconds + (time.monotonic() - self.started if self.started else 0.0)

    def _collect(self) -> None:
        if self.waiting:
            values = mean(torch.stack(self.waiting).double())
            self.ready, self.waiting = torch.cat([self.ready, values.cpu()]), []


class Health:
    """Looks at every row of log.csv: stops a training that is lost, and says when an encoder collapses.

    `keys_in_batch` is how many keys `batch_accuracy` chooses from, those of one process; None for a stage without keys. A
    run that goes on is compared with its own first row.
    """

    def __init__(self, run: Run, keys_in_batch: int | None = None):
        self.run, self.keys_in_batch = run, keys_in_batch
        self.first_loss: float | None = None
        self.rows: list[dict] = []  # the last ones
        self.reported: dict[str, int] = {}  # by kind: rows since it was last seen; one that is gone is forgotten

    def check(self, row: dict) -> None:
        """Raise InputError when the loss is not finite, or has exploded; a row of step 0 has none.

        Pre-training begins with almost no loss, because the queue is full of random vectors that no crop resembles; its
        loss is compared with that of guessing, if that is more.
        """
        loss, step = row["loss"], row["step"]
        if step == 0:
            return
        if not math.isfinite(loss):
            raise not_finite(self.run, f"the loss is {loss}", step)
        if self.first_loss is None:
            self.first_loss = _first_loss(self.run, otherwise=loss)
        usual = max(self.first_loss, row.get("chance_loss", 0.0))
        if loss > EXPLODED * usual:
            raise InputError(
                f"the loss has exploded: it is {loss:.4g} at step {step} and at most {EXPLODED * usual:.4g} was expected, "
                f"{EXPLODED:g} times what it began with; {_way_out(self.run)}"
            )

    def report(self, row: dict) -> list[str]:
        """Sentences about a collapsed encoder, each kind once until it recovers; none for a stage without keys."""
        if self.keys_in_batch is None or row["step"] == 0:
            return []
        self.rows = [*self.rows, row][-WINDOW:]
        first = self.rows[0]["step"]
        # random vectors fill the queue at first, then keys of an untrained network: twice its length in all
        queue = math.exp(row["chance_loss"]) / (self.keys_in_batch * world_size())  # its length in steps
        if len(self.rows) < WINDOW or first <= max(GRACE, 2 * queue):
            return []
        means = {name: sum(row[name] for row in self.rows) / WINDOW for name in JUDGED}
        found = diagnose(means, self.keys_in_batch, (row["step"] - first) * self.keys_in_batch)
        self.reported = {kind: rows + 1 for kind, rows in self.reported.items() if rows < RECOVERED}
        if found is None:
            return []
        kind, sentence = found
        known = kind in self.reported
        self.reported[kind] = 0
        return [] if known else [f"steps {first} to {row['step']}: {kind}: {sentence}"]


def diagnose(row: dict, keys_in_batch: int, images: int) -> tuple[str, str] | None:
    """What is wrong with an encoder, and what was seen, what is healthy, what to do; None for one that learns.

    `row` has means of the columns JUDGED over `images` queries. One answer at most: the accuracies of projections that
    are all the same are decided by rounding.
    """
    accuracy, batch_accuracy, loss, chance_loss = (row[name] for name in JUDGED[:4])
    seen = f"accuracy is {accuracy:.2g} and batch_accuracy {batch_accuracy:.2g}, where guessing gets"
    seen += f" {math.exp(-chance_loss):.2g} and {1 / keys_in_batch:.2g}"
    if row["feature_std"] < COLLAPSED_STD or row["uniformity"] > COLLAPSED_UNIFORMITY:
        return (
            "the projections of all crops are the same",
            f"feature_std is {row['feature_std']:.2g} and uniformity {row['uniformity']:.2g}; a healthy encoder has 0.2 to 1 "
            "and less than -0.2; stop, use a smaller --lr or more --warmup-epochs, and make sure that the crops differ",
        )
    if accuracy >= AGE_ACCURACY and batch_accuracy < max(NEAR_CHANCE / keys_in_batch, accuracy / AGE_RATIO):
        return (
            "the network tells the age of keys, not people",
            f"{seen}; a healthy encoder is better among the keys of its batch, which are as new, than among the many of "
            "the queue; stop, and use a larger --key-momentum or a smaller --lr",
        )
    # fewer than one lucky guess may be due in so few images, and one says nothing
    guessed = NEAR_CHANCE * max(math.exp(-chance_loss), 1 / images)
    at_chance = accuracy <= guessed and batch_accuracy <= NEAR_CHANCE / keys_in_batch
    if at_chance and loss > chance_loss - CHANCE_LOSS_MARGIN:
        return (
            "the network does not tell its own key from others",
            f"{seen}, and the loss {loss:.3f} is that of guessing, {chance_loss:.3f}; a healthy run is below it after some "
            "hundred steps at its full learning rate; use another --lr, --optimizer adamw, or views that show more of a "
            "person (--augmentation whole)",
        )
    return None


def alignment(q: Tensor, k: Tensor) -> Tensor:
    """How far apart the two views of a crop are: the mean squared distance of (B, C) unit-norm pairs, 0 is best.

    Wang & Isola 2020, section 4.1 (their alpha is 2).
    """
    return (q - k).square().sum(dim=1).mean()


def uniformity(q: Tensor) -> Tensor:
    """How evenly (B, C) unit-norm projections fill the sphere: log mean exp(-2 d^2) over pairs; 0 if all are the same.

    The more negative, the more even; -4 is what many dimensions come to. Wang & Isola 2020, section 4.1 (their t is 2).
    """
    exponents = (4 * (q @ q.T) - 4).fill_diagonal_(-math.inf)  # d^2 = 2 - 2 cosine; nothing is a pair with itself
    return exponents.flatten().logsumexp(dim=0) - math.log(len(q) * (len(q) - 1))


def not_finite(run: Run, what: str, step: int) -> InputError:
    """The error of a training whose loss or weights are no numbers any more; `what` says which."""
    return InputError(f"{what} at step {step}, and training cannot go on; {_way_out(run)}")


@contextmanager
def explained(advice: str) -> Iterator[None]:
    """Say in a sentence what torch throws at any place of a loop: memory that is full, a reader that died, no compiler.

    `advice` is what to lower when memory is full, as "raise --accumulate".
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        sentence = _explain(error, advice)
        if sentence is None:
            raise
        raise InputError(f"{sentence}; checkpoints are kept, and the run can go on from the last one") from error


def _explain(error: Exception, advice: str) -> str | None:
    words = str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return f"the GPU's memory is full{_in_use()}, and a step needs more; {advice}"
    if any(part in words for part in LIBRARY_FULL):
        return f"the GPU's memory is full, and a step needs more; {advice}"
    if isinstance(error, MemoryError) or "DefaultCPUAllocator: can't allocate memory" in words:
        return f"this machine's memory is full, and a step needs more; {advice}"
    if "DataLoader worker" in words:
        return (
            f"a process that reads crops died ({' '.join(words.split())}): it may have run out of memory, or out of shared "
            "memory (/dev/shm, in a container --shm-size); lower --num-workers"
        )
    if "No working C++ compiler found" in words:
        return "--compile needs a C++ compiler and there is none; install g++, or leave --compile out"
    return None


def _in_use() -> str:
    if not torch.cuda.is_available():
        return ""
    free, size = torch.cuda.mem_get_info()
    own = torch.cuda.memory_allocated()
    return f" ({(size - free) / 2**30:.1f} of {size / 2**30:.1f} GiB in use, {own / 2**30:.1f} by tensors of this run)"


def _first_loss(run: Run, otherwise: float) -> float:
    """The loss in the run's first row that has one; a measurement before the first step has none."""
    log = run.log()
    losses = log["loss"].dropna() if "loss" in log else []
    return float(losses.iloc[0]) if len(losses) else otherwise


def _way_out(run: Run) -> str:
    """What is left of a lost training. The same settings would fail at the same step again, so others are needed."""
    if not run.checkpoint.exists():
        return "no checkpoint was written yet; use a smaller --lr"
    older = list(run.older_checkpoints())[:1]  # the newest of them
    kept = "".join(f", and an older one {file.name}" for file in older)
    start = (older or [run.checkpoint])[0]
    return f"the last good checkpoint is {run.checkpoint}{kept}; use a smaller --lr in a new --out, with --init {start}"
