"""Which part of a descriptor made the distance of two crops: with numpy alone, and exactly.

A descriptor is parts of equal size side by side, with length 1 as a whole, so that
1 - cos(a, b) = |a - b|^2 / 2 = sum over the parts of |a_p - b_p|^2 / 2. Legend: D feature size.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lab.errors import InputError


def part_table(a: np.ndarray, b: np.ndarray, parts: Sequence[str]) -> pd.DataFrame:
    """How much each part adds to the distance 1 - cosine of two descriptors (D,); none takes anything away.

    One row per name in `parts`, which are in the descriptor's order: "adds" sums exactly to the distance, "share" is
    that as a fraction of it (NaN for two equal descriptors), "cosine" is that of the two parts alone (NaN for a part
    that is zero). Raises InputError if the descriptors cannot be cut into these parts, are zero or are not finite.
    """
    a, b = (_unit(values) for values in (a, b))
    if a.shape != b.shape or not len(parts) or len(a) % len(parts):
        raise InputError(
            f"descriptors of {len(a)} and {len(b)} numbers cannot be cut into {len(parts)} equal parts; expected two of "
            "one model, as 2,048 numbers are eight parts of 256"
        )
    a, b = a.reshape(len(parts), -1), b.reshape(len(parts), -1)
    adds = np.square(a - b).sum(axis=1) / 2
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share, cosine = adds / adds.sum(), (a * b).sum(axis=1) / lengths
    return pd.DataFrame({"part": list(parts), "adds": adds, "share": share, "cosine": cosine})


def _unit(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    length = np.linalg.norm(values)
    if values.ndim != 1 or not 0 < length < np.inf:
        raise InputError(
            f"a descriptor {values.shape} has length {length}; expected one row of numbers that are not all 0"
        )
    return values / length
