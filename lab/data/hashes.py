"""Perceptual hashes: 64 bits that stay nearly the same when a picture is compressed again or resized."""

import imagehash
import numpy as np
from PIL import Image

from lab.errors import InputError

_BIT_VALUES = np.uint64(1) << np.arange(63, -1, -1, dtype=np.uint64)
_ONES_IN_A_BYTE = np.array([byte.bit_count() for byte in range(256)], dtype=np.uint8)
_PARTS, _PART_BITS = 4, 16  # how HashIndex cuts a hash
_MOST_BITS = 15


def perceptual_hash(rgb: np.ndarray) -> np.uint64:
    """Which coarse light-dark waves of a picture are stronger than usual, one bit each, the slowest waves first.

    `rgb` is (H, W, 3) uint8 of any size. It is the DCT hash `imagehash.phash`: grey, 32 x 32 pixels, and of its cosine
    transform the 8 x 8 slowest waves against their median.
    """
    bits = imagehash.phash(Image.fromarray(rgb)).hash
    return _BIT_VALUES[bits.ravel()].sum(dtype=np.uint64)


def bits_apart(a: np.ndarray | int, b: np.ndarray | int) -> np.ndarray:
    """How many of the 64 bits differ: 0 to 64, uint8, for two hashes or for arrays that broadcast."""
    different = np.bitwise_xor(np.asarray(a, dtype=np.uint64), np.asarray(b, dtype=np.uint64))
    if hasattr(np, "bitwise_count"):  # since numpy 2
        return np.bitwise_count(different)
    return _ones(different)


def _ones(values: np.ndarray) -> np.ndarray:
    """`np.bitwise_count` of uint64 for numpy 1."""
    return _ONES_IN_A_BYTE[values[..., None].view(np.uint8)].sum(axis=-1, dtype=np.uint8)


class HashIndex:
    """Finds all pairs of hashes that differ in at most `max_bits` bits, exactly, without comparing every pair.

    Why it misses none: cut into four parts, two such hashes differ in at most max_bits // 4 bits of one part at least.
    So only hashes are compared that agree in a part, after each way to flip so few of its 16 bits. Raises InputError.
    """

    def __init__(self, hashes: np.ndarray, max_bits: int):
        if not 0 <= max_bits <= _MOST_BITS:
            raise InputError(
                f"max_bits is {max_bits}; expected 0 to {_MOST_BITS} of the 64 bits: give a number in that range"
            )
        self.hashes, self.max_bits = hashes, max_bits
        values = np.arange(1 << _PART_BITS)
        self.flips = values[bits_apart(values, 0) <= max_bits // _PARTS]
        self.tables = []  # of each part: positions and hashes sorted by its value, and where each value starts
        for part in _parts(hashes):
            order = np.argsort(part, kind="stable")
            starts = np.searchsorted(part[order], np.arange((1 << _PART_BITS) + 1))
            self.tables.append((order, hashes[order], starts))

    def near(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Position in `hashes` (N,), position in the index and bits of every near pair, each once, sorted by position.

        The memory grows with N times the largest number of hashes in the index that agree in a part: pass blocks.
        """
        pairs = []
        for part, (order, ordered, starts) in zip(_parts(hashes), self.tables, strict=True):
            value = (part[:, None] ^ self.flips).ravel()  # (N * flips,) values that a near hash may have here
            first, count = starts[value], starts[value + 1] - starts[value]
            row = np.repeat(np.arange(len(value)) // len(self.flips), count)
            place = np.arange(len(row)) + np.repeat(first - (np.cumsum(count) - count), count)
            near = np.flatnonzero(bits_apart(hashes[row], ordered[place]) <= self.max_bits)
            pairs.append(np.stack([row[near], order[place[near]]]))
        row, position = np.unique(np.concatenate(pairs, axis=1), axis=1)  # more than one part can agree
        return row, position, bits_apart(hashes[row], self.hashes[position])


def _parts(hashes: np.ndarray) -> list[np.ndarray]:
    """The four parts of each hash, (N,) int64 in 0..65535 each."""
    last = np.uint64((1 << _PART_BITS) - 1)
    return [((hashes >> np.uint64(_PART_BITS * part)) & last).astype(np.int64) for part in range(_PARTS)]
