"""Query expansion: every crop's feature moves towards its nearest crops before anything is ranked."""

import numpy as np
import torch

from lab.errors import InputError
from lab.evaluate.distance import unit
from lab.evaluate.rerank import k_nearest


def query_expansion(
    query: np.ndarray,
    gallery: np.ndarray,
    k: int = 5,
    alpha: float = 3.0,
    times: int = 1,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Replace every feature by the mean of its `k` nearest (itself included), each weighted by cosine ** `alpha`.

    `alpha` 0 is average query expansion (Chum et al., 2007), 3 the alpha-weighted kind (Radenovic et al., 2018), done
    `times` times. Neighbours come from queries and gallery together and are found by cosine, but the features are
    averaged as they are, with their length. (Q, D) and (G, D) in, the same shapes out, not unit norm. Raises
    InputError for numbers out of range.
    """
    check_expansion(k, alpha, times)
    values = torch.from_numpy(np.concatenate([query, gallery]).astype(np.float32)).to(device)
    for _ in range(times):
        index, distance, _ = k_nearest(unit(values), min(k, len(values)), "cosine", progress)
        weight = (1 - distance).clamp(min=0) ** alpha
        expanded = torch.zeros_like(values)
        for column in range(index.shape[1]):
            expanded += weight[:, column : column + 1] * values[index[:, column]]
        values = expanded / index.shape[1]
    values = values.cpu().numpy()
    return values[: len(query)], values[len(query) :]


def check_expansion(k: int, alpha: float, times: int) -> None:
    """Raise InputError for numbers that query expansion cannot use."""
    if k < 1 or times < 1 or not 0 <= alpha < np.inf:
        raise InputError(
            f"query expansion got k {k}, alpha {alpha}, times {times}; expected k and times from 1, alpha from 0 on"
        )
