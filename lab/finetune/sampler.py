"""Which crops meet in a batch: P people with K crops each, so that every anchor has positives and negatives.

Legend: N crops, P identities in a batch, K crops of each.
"""

from collections.abc import Iterator

import numpy as np

from lab.errors import InputError


class IdentitySampler:
    """Endless batches of `ids_per_batch` different people with `images_per_id` crops each, person after person.

    A cycle starts with everybody in the pool. A batch draws its people from the pool at random; whoever is drawn for
    the first time in a cycle has the crops shuffled into a list (drawn with replacement if there are fewer than
    `images_per_id`) and gives that many from its front at every draw. Who has fewer left than that leaves the pool and
    the rest is not used; with fewer people in the pool than a batch needs, the next cycle starts. These are the rules
    of the published NaiveIdentitySampler.

    The stream depends on labels and seed alone and knows no epochs: to go on after n batches, skip n. `labels` (N,)
    int. Raises InputError if there are fewer people than a batch needs.
    """

    def __init__(self, labels: np.ndarray, ids_per_batch: int = 4, images_per_id: int = 16, seed: int = 0):
        if ids_per_batch < 2 or images_per_id < 1:
            raise InputError(
                f"a batch of {ids_per_batch} identities x {images_per_id} images has no triplets; expected at least "
                "2 identities; change ids_per_batch and images_per_id"
            )
        self.ids_per_batch, self.images_per_id, self.seed = ids_per_batch, images_per_id, seed
        labels = np.asarray(labels)
        self.crops_of = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        if len(self.crops_of) < ids_per_batch:
            raise InputError(
                f"the training split has {len(self.crops_of)} identities, and a batch needs {ids_per_batch} different "
                "ones; use more identities (fraction) or a smaller ids_per_batch"
            )

    @property
    def batch_size(self) -> int:
        return self.ids_per_batch * self.images_per_id

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the (P * K,) crop indices of one batch after another, for ever."""
        random = np.random.default_rng(self.seed)
        while True:
            yield from self._cycle(random)

    def _cycle(self, random: np.random.Generator) -> Iterator[np.ndarray]:
        pool = list(range(len(self.crops_of)))
        left: dict[int, np.ndarray] = {}
        while len(pool) >= self.ids_per_batch:
            batch = []
            for person in random.choice(pool, self.ids_per_batch, replace=False):
                if person not in left:
                    left[person] = self._shuffled(person, random)
                batch.append(left[person][: self.images_per_id])
                left[person] = left[person][self.images_per_id :]
                if len(left[person]) < self.images_per_id:
                    pool.remove(person)
            yield np.concatenate(batch)

    def _shuffled(self, person: int, random: np.random.Generator) -> np.ndarray:
        crops = self.crops_of[person]
        if len(crops) < self.images_per_id:
            return random.choice(crops, self.images_per_id, replace=True)
        return random.permutation(crops)
