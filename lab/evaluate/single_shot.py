"""Single-gallery-shot CMC, as the classic CUHK03 protocol has it: the gallery shows every person in one crop.

Which crop that is, is drawn at random and anew for every query and repeat, among the crops that count for the query
(the same person from the same camera is removed first); the CMC is the mean over the repeats. AP and INP do not
change: they are those of the full rank list.

Legend: Q queries, G gallery crops, B queries of one block, M matches of all of them, P people in the gallery, R repeats.
"""

import numpy as np
import torch
from torch import Tensor

from lab.errors import InputError

DRAWS = 1 << 20  # crops that are compared at a time


class SingleShot:
    """Draws one gallery crop per person. A query's draws depend on `seed` and its number alone, not on blocks."""

    def __init__(self, query_pid: np.ndarray, gallery_pid: np.ndarray, repeats: int = 10, seed: int = 0):
        check_shots(repeats, seed)
        self.repeats, self.seed = repeats, seed
        self.order = np.argsort(gallery_pid, kind="stable")  # the crops of one person lie side by side here
        people, self.first, self.size = np.unique(gallery_pid[self.order], return_index=True, return_counts=True)
        self.own = np.searchsorted(people, query_pid)  # means nothing for a person who is not in the gallery

    def ranks(self, block: Tensor, start: int, row: Tensor, column: Tensor) -> np.ndarray:
        """The rank (B, R) of the match that was drawn (1 = nearest); 0 for a query without a match.

        `block` (B, G) holds the distances of the queries from number `start` on, `row` and `column` (M,) say where
        their matches stand, ordered by row.
        """
        count = np.bincount(row.cpu().numpy(), minlength=len(block))
        matches = np.split(column.cpu().numpy(), np.cumsum(count)[:-1])
        ranks = np.zeros((len(block), self.repeats), np.int64)
        answerable = np.flatnonzero(count)
        step = max(1, DRAWS // (self.repeats * len(self.size)))
        for part in (answerable[i : i + step] for i in range(0, len(answerable), step)):
            drawn = np.stack([self.draw(start + query, matches[query]) for query in part])
            ranks[part] = rank_among(block[torch.from_numpy(part)], drawn, self.own[start + part])
        return ranks

    def draw(self, query: int, matches: np.ndarray) -> np.ndarray:
        """One gallery position per repeat and person (R, P); the query's own person is drawn among its `matches`."""
        chance = np.random.default_rng([self.seed, query]).random((self.repeats, len(self.size)))
        drawn = self.order[self.first + (chance * self.size).astype(np.int64)]
        own = self.own[query]
        drawn[:, own] = matches[(chance[:, own] * len(matches)).astype(np.int64)]
        return drawn


def rank_among(block: Tensor, drawn: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The rank (B, R) of the crop of person `own` (B,) among the crops drawn (B, R, P), by distances (B, G).

    Equal distances are ordered by gallery position.
    """
    drawn, own = (torch.from_numpy(values).to(block.device) for values in (drawn, own))
    own = own.view(-1, 1, 1).expand(-1, drawn.shape[1], 1)
    distance = block.gather(1, drawn.flatten(1)).view(drawn.shape)
    position, nearest = drawn.gather(2, own), distance.gather(2, own)
    before = (distance < nearest) | ((distance == nearest) & (drawn < position))
    return (before.sum(2) + 1).cpu().numpy()


def check_shots(repeats: int, seed: int) -> None:
    """Raise InputError for a number of draws or a seed out of range."""
    if repeats < 1 or seed < 0:
        raise InputError(
            f"single-gallery-shot got repeats {repeats} and seed {seed}; expected repeats from 1, a seed from 0 on"
        )
