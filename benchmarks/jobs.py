"""The jobs that benchmarks/evaluation.py measures, and the random features that they work on.

Legend: Q queries, G gallery crops, D feature size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plain
import torch
from torch import Tensor

from lab.evaluate.approximate import approximate_search, recall
from lab.evaluate.metrics import evaluate_ranking
from lab.evaluate.rerank import rerank_blocks
from lab.evaluate.verification import verify
from lab.runs import Features

PIECE = {"cpu": (512, 16384), "cuda": (4096, 32768)}  # queries and gallery crops of one product


@dataclass(frozen=True)
class Task:
    """What a job works on."""

    query: Features
    gallery: Features
    device: torch.device
    memory_gb: float
    precision: str


class RandomCrowd:
    """Noisy copies of people's centres, so that mAP is neither 0 nor 1; made slice by slice, as they are written."""

    def __init__(self, pid: np.ndarray, people: int, size: int, seed: int):
        self.pid, self.seed = pid, seed
        self.centre = np.random.default_rng(0).standard_normal((people, size), dtype=np.float32)
        # cosines of two crops of one person lie 2.7 deviations above the others'
        self.noise = np.sqrt(max(0.0, np.sqrt(size) / 2.7 - 1))
        self.shape, self.dtype = (len(pid), size), np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.pid)

    def __getitem__(self, rows: slice) -> np.ndarray:
        values = self.centre[self.pid[rows]]
        random = np.random.default_rng([self.seed, rows.start])
        values += self.noise * random.standard_normal(values.shape, dtype=np.float32)
        return values / np.linalg.norm(values, axis=1, keepdims=True)


def make(file: Path, count: int, size: int, people: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    pid, camid = random.integers(0, people, count), random.integers(0, 6, count)
    Features(RandomCrowd(pid, people, size, seed), pid, camid, np.full(count, "")).save(file)


def crops(task: Task) -> tuple:
    """Q and G rows to multiply, on the device already, except those that are read from disk meanwhile."""
    return on_device(task, task.query.values), on_device(task, task.gallery.values)


def everyone(task: Task) -> tuple:
    values = on_device(task, np.concatenate([task.query.values, task.gallery.values]))
    return values, values


def on_device(task: Task, values):
    """An array as a tensor of the product's type; rows on disk stay there."""
    if not isinstance(values, np.ndarray):
        return values
    kind = torch.bfloat16 if task.precision == "bfloat16" else torch.float32
    return torch.from_numpy(values).to(task.device, kind)


def product(task: Task, a: Tensor, b) -> None:
    """All products of a row of `a` and a row of `b`, piece by piece; nothing is kept."""
    rows, columns = PIECE[task.device.type]
    out = torch.empty(min(len(a), rows) * min(len(b), columns), device=task.device, dtype=a.dtype)
    for start in range(0, len(b), columns):
        part = b[start : start + columns]
        part = part if isinstance(part, Tensor) else on_device(task, part)
        for some in a.split(rows):
            torch.mm(some, part.T, out=out[: len(some) * len(part)].view(len(some), -1))


def upload(task: Task) -> None:
    for features in (task.query, task.gallery):
        torch.from_numpy(features.values[:]).to(task.device)


def ranking(task: Task):
    settings = {"memory_gb": task.memory_gb, "device": task.device, "precision": task.precision}
    return evaluate_ranking(task.query, task.gallery, **settings)


def reranked_blocks(task: Task):
    values = task.query.values, task.gallery.values
    return rerank_blocks(*values, memory_gb=task.memory_gb, device=task.device)


def reranking(task: Task):
    return evaluate_ranking(task.query, task.gallery, blocks=reranked_blocks(task), device=task.device)


def verification(task: Task):
    return verify(task.query, task.gallery, memory_gb=task.memory_gb, device=task.device)


def plain_ranking(task: Task):
    return plain.rank(task.query, task.gallery)


def plain_reranking(task: Task):
    return plain.rerank(task.query.values, task.gallery.values)


def ivf(task: Task):
    return approximate_search(task.query, task.gallery)


def hnsw(task: Task):
    return approximate_search(task.query, task.gallery, index="hnsw")


def compare_ranking(task: Task, found: dict) -> str:
    ours = ranking(task)
    gaps = {name: np.abs(found[name] - getattr(ours, name)).max() for name in ("mAP", "mINP", "cmc")}
    return "largest difference to ranking: " + ", ".join(f"{name} {gap:.1e}" for name, gap in gaps.items())


def compare_reranking(task: Task, found: np.ndarray) -> str:
    """Where a tie in the last bit makes two programs choose another neighbour, some distances differ by more than 1e-5."""
    largest, over, start = 0.0, 0, 0
    for block in reranked_blocks(task):
        gap = np.abs(found[start : start + len(block)] - block.cpu().numpy())
        largest, over, start = max(largest, float(gap.max())), over + int((gap > 1e-5).sum()), start + len(block)
    return f"largest difference to reranking: {largest:.1e}; {over} of {found.size} distances differ by more than 1e-5"


def compare_index(task: Task, found) -> str:
    exact = ranking(task)
    recalls = ", ".join(f"{recall(found.index, exact.index, k):.3f} at {k}" for k in (1, 10, 50))
    return f"recall {recalls}; {found.seconds_build:.1f} s to build, {found.seconds_search:.2f} s to search; {found.settings}"


@dataclass(frozen=True)
class Job:
    """One thing to measure, what it is compared with, and what it needs beyond the features, in bytes."""

    run: Callable[..., object]  # of the task and what `given` makes
    about: str
    given: Callable[[Task], tuple] = lambda task: ()  # made anew before every turn, and not timed
    product: str | None = None  # the job that it cannot be faster than
    rival: str | None = None  # the lab's job that does the same
    check: Callable[[Task, object], str] | None = None
    needs: Callable[[int, int, int], float] = lambda q, g, d: 1e9
    on: tuple[str, ...] = ("market", "msmt17", "million", "small")  # presets that it belongs to unless --jobs says so


SETS = ("market", "msmt17", "small")
JOBS = {
    "upload": Job(upload, "copy the features to the device", on=()),
    "product": Job(product, "bare product Q x G", crops),
    "ranking": Job(ranking, "CMC, mAP, mINP, top 50", product="product"),
    "verification": Job(verification, "histograms of all pairs", product="product"),
    "product-all": Job(product, "bare product (Q + G) x (Q + G)", everyone, on=SETS),
    "reranking": Job(reranking, "re-ranking, then the same metrics", product="product-all", on=SETS),
    "plain-ranking": Job(
        plain_ranking,
        "plain numpy: argsort of every row",
        product="product",
        rival="ranking",
        check=compare_ranking,
        needs=lambda q, g, d: 14 * q * g,
    ),
    "plain-reranking": Job(
        plain_reranking,
        "plain numpy: dense re-ranking",
        product="product-all",
        rival="reranking",
        check=compare_reranking,
        needs=lambda q, g, d: 20 * (q + g) ** 2,
        on=SETS,
    ),
    "ivf": Job(ivf, "approximate: inverted file", product="product", rival="ranking", check=compare_index, on=()),
    "hnsw": Job(hnsw, "approximate: graph", product="product", rival="ranking", check=compare_index, on=()),
}
