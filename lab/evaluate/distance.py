"""How far two crops are from each other: distances block by block, and exactly for chosen pairs.

Legend: Q queries, G gallery crops, N crops of either, D feature size, B queries of one block, W gallery crops of one
tile, P pairs. *Prepared* features are float32, and of unit length for the cosine distance.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

DISTANCES = ("cosine", "euclidean")
PRECISIONS = ("float32", "tf32", "bfloat16")
MOST_ROWS = 512  # more queries in a block do not make the matrix product faster
PANEL = 512  # columns of a product that the CPU computes at a time
COPIES = 3  # a block of distances, its sorted copy and a mask are alive at the same time
PAIR_BYTES = 1 << 22  # of features that are compared pair by pair at a time: they stay in the processor's cache


def prepare(values: np.ndarray, distance: str, device: str | torch.device = "cpu") -> Tensor:
    """(N, D) features as a float32 tensor; unit length for the cosine distance (copied only if they are not yet)."""
    values = torch.from_numpy(np.require(values, np.float32, "CW")).to(device)
    return unit(values) if distance == "cosine" else values


def unit(values: Tensor) -> Tensor:
    """The same directions with length 1; a row that has it already stays as it is, whatever rows lie beside it."""
    # a GPU sums in an order that depends on how many rows there are: in float64 that does not show
    norm = torch.linalg.vector_norm(
        values, dim=1, keepdim=True, dtype=torch.float64 if values.is_cuda else None
    ).float()
    has_it = (norm - 1).abs() < 1e-6
    return values if has_it.all() else values / norm.clamp(min=1e-12).masked_fill(has_it, 1)


def pairwise(a: Tensor, b: Tensor, distance: str, out: Tensor | None = None) -> Tensor:
    """Distances (A, B) between prepared features (A, D) and (B, D), by a float32 matrix product."""
    product = multiply(a, b, out)
    if distance == "cosine":
        return torch.sub(torch.ones((), device=a.device), product, out=product)
    product.mul_(-2).add_(a.square().sum(1, keepdim=True)).add_(b.square().sum(1))
    return product.clamp_(min=0)


def exact_pairs(a: Tensor, b: Tensor, distance: str) -> Tensor:
    """Distances (P,) between the rows of prepared features (P, D) and (P, D), float32 but summed in float64.

    So they depend neither on the order of the sum nor on what is computed beside them. The cosine is rounded before it
    is taken from 1, as in the published programs; how near 1 it is, float32 features do not say any closer.
    """
    a, b = a.double(), b.double()
    return 1 - torch.linalg.vecdot(a, b).float() if distance == "cosine" else (a - b).square().sum(1).float()


def exact_block(a: Tensor, b: Tensor, distance: str) -> Tensor:
    """The same for all pairs: (A, B) from (A, D) and (B, D)."""
    a, b = a.double(), b.double()
    if distance == "cosine":
        return 1 - (a @ b.T).float()
    # not by |a|^2 + |b|^2 - 2ab, which loses the digits of small distances
    return torch.stack([(b - row).square().sum(1) for row in a]).float()


class Rows:
    """Features (N, D), prepared slice by slice when they are asked for, or kept prepared on the device.

    `values` is an array, or stays on disk (`lab.features_on_disk`). They are kept where that costs no memory or at most
    `memory_gb`: arrays that need no change on the CPU, and on a GPU what fits into a quarter of its free memory.
    """

    def __init__(self, values, distance: str, device: torch.device, memory_gb: float):
        self.values, self.distance, self.device = values, distance, device
        self.square = torch.full((len(values),), torch.nan, device=device)  # lengths squared, once they are known
        self.kept: Tensor | None = None
        if isinstance(values, np.ndarray) and (self._fits(memory_gb) or self._is_prepared()):
            self.kept = prepare(values, distance, device)

    def __len__(self) -> int:
        return len(self.values)

    def slice(self, start: int, stop: int) -> Tensor:
        """Prepared features of start..stop: (stop - start, D)."""
        if self.kept is not None:
            return self.kept[start:stop]
        return prepare(self.values[start:stop], self.distance, self.device)

    def squares(self, start: int, part: Tensor) -> Tensor:
        """The squared lengths of `part`, the slice from `start` on."""
        stop = start + len(part)
        if self.square[start:stop].isnan().any():
            self.square[start:stop] = torch.einsum("nd,nd->n", part, part)
        return self.square[start:stop]

    def take(self, index: Tensor) -> Tensor:
        """Prepared features of chosen rows: (P, D)."""
        if self.kept is not None:
            return self.kept[index]
        return prepare(self.values[index.cpu().numpy()], self.distance, self.device)

    def _fits(self, memory_gb: float) -> bool:
        most = memory_gb * 1e9 if self.device.type == "cpu" else torch.cuda.mem_get_info(self.device)[0] / 4
        return 4 * self.values.shape[0] * self.values.shape[1] <= most

    def _is_prepared(self) -> bool:
        """Whether the array can be used on the CPU as it is."""
        if self.device.type != "cpu" or self.values.dtype != np.float32 or not self.values.flags["C_CONTIGUOUS"]:
            return False
        parts = (self.values[i : i + MOST_ROWS] for i in range(0, len(self), MOST_ROWS))
        return self.distance != "cosine" or all(np.shares_memory(prepare(part, "cosine"), part) for part in parts)


def tile_shape(queries: int, gallery: Rows, memory_gb: float, most_matches: int = 1) -> tuple[int, int]:
    """Rows and columns of the tiles of distances that, with their copies, fit into `memory_gb`.

    As many whole rows as fit; where these are too few for a fast matrix product, more rows and a part of the columns.
    A gallery that is read anew for every block of queries gets large blocks. `most_matches` of one query bounds a
    block as well.
    """
    entries = memory_gb * 1e9 / (4 * COPIES)
    most = min(queries, MOST_ROWS if gallery.device.type == "cpu" else 8 * MOST_ROWS)
    if gallery.kept is None:
        rows = min(queries, 2 * most)
    else:
        rows = min(entries // len(gallery), most) if entries // len(gallery) >= min(queries, most / 4) else most
    rows = int(np.clip(entries // (4 * most_matches), 1, rows))
    columns = entries // rows
    if gallery.kept is None:  # the rows that are read for a tile, and what is prepared of them, take memory too
        columns = min(columns, memory_gb * 1e9 / (3 * 4 * gallery.values.shape[1]))
    tiles = int(np.ceil(len(gallery) / np.clip(columns, 1, len(gallery))))
    return rows, -(-len(gallery) // tiles)


def distance_blocks(
    query: np.ndarray,
    gallery: np.ndarray,
    distance: str = "cosine",
    memory_gb: float = 0.25,
    device: str | torch.device = "cpu",
) -> Iterator[Tensor]:
    """Yield the distances of consecutive queries to the whole gallery: tensors (B, G) float32.

    A block is valid until the next one is asked for (the memory is used again).
    """
    device = torch.device(device)
    query, gallery = Rows(query, distance, device, memory_gb), prepare(gallery[:], distance, device)
    rows = int(np.clip(memory_gb * 1e9 / (4 * COPIES * len(gallery)), 1, min(MOST_ROWS, len(query))))
    buffer = torch.empty(rows, len(gallery), device=device)
    for start in range(0, len(query), rows):
        part = query.slice(start, min(start + rows, len(query)))
        yield pairwise(part, gallery, distance, out=buffer[: len(part)])


def distance_tiles(
    query: np.ndarray,
    gallery: np.ndarray,
    distance: str = "cosine",
    memory_gb: float = 0.25,
    device: str | torch.device = "cpu",
) -> Iterator[tuple[int, int, Tensor]]:
    """Yield row, column and the distances (B, W) float32 of queries from `row` on to gallery crops from `column` on.

    Every pair comes once. A tile is valid until the next one is asked for (the memory is used again).
    """
    device = torch.device(device)
    query, gallery = (Rows(values, distance, device, memory_gb) for values in (query, gallery))
    rows, columns = tile_shape(len(query), gallery, memory_gb)
    buffer = torch.empty(rows * columns, device=device)
    for row in range(0, len(query), rows):
        part = query.slice(row, min(row + rows, len(query)))
        for column in range(0, len(gallery), columns):
            other = gallery.slice(column, min(column + columns, len(gallery)))
            out = buffer[: len(part) * len(other)].view(len(part), len(other))
            yield row, column, pairwise(part, other, distance, out=out)


def multiply(a: Tensor, b: Tensor, out: Tensor | None = None, precision: str = "float32") -> Tensor:
    """The product a b^T (A, B) of float32 features (A, D) and (B, D), computed in one of PRECISIONS.

    On the CPU panel by panel: a factor of 512 rows stays in the cache, which makes it up to a quarter faster.
    """
    if out is None:
        out = torch.empty(len(a), len(b), device=a.device)
    if precision == "bfloat16" and a.device.type == "cpu":
        a, b = a.bfloat16().float(), b.bfloat16().float()
    elif precision == "bfloat16":
        return out.copy_(a.bfloat16() @ b.bfloat16().T)
    panel = PANEL if a.device.type == "cpu" else len(b)
    with matrix_products(precision):
        for start in range(0, len(b), panel):
            torch.mm(a, b[start : start + panel].T, out=out[:, start : start + panel])
    return out


@contextmanager
def matrix_products(precision: str) -> Iterator[None]:
    """Let float32 matrix products run in float32, whatever the caller allows elsewhere, or in TF32 where there is any."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def nearest_keys(block: Tensor, count: int) -> Tensor:
    """The `count` smallest values of each row with their columns, as keys (B, count) in no particular order."""
    value, column = block.topk(min(count + 1, block.shape[1]), dim=1, largest=False)
    if block.shape[1] > count:
        # topk takes any of the values that equal the last one: rows where some are left over are sorted in full
        unclear = torch.nonzero(value[:, count - 1] == value[:, count]).squeeze(1)
        for part in unclear.split(64):
            values, columns = block[part].sort(dim=1, stable=True)
            value[part], column[part] = values[:, : count + 1], columns[:, : count + 1]
    return to_key(value[:, :count], column[:, :count])


def to_key(value: Tensor, column: Tensor) -> Tensor:
    """Distance and column as one int64: keys compare like (value, column), so that one sort orders by both."""
    bits = (value + 0.0).view(torch.int32)  # + 0.0 makes -0 and 0 the same bits
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # a negative float's bits grow as the value falls
    return (ordered.long() << 32) | column


def from_key(key: Tensor) -> tuple[Tensor, Tensor]:
    """Keys -> value and column."""
    ordered = (key >> 32).int()
    return torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered).view(torch.float32), key & 0xFFFFFFFF
