"""The label-free retrieval probe: how well do features find people that nobody has labelled for training?"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from lab.data.crops import Crops, resize, to_tensor
from lab.data.splits import ReidDataset, Split
from lab.evaluate.metrics import evaluate_ranking
from lab.runs import Features


def retrieval_probe(
    dataset: ReidDataset, height: int, width: int, max_ids: int = 100, batch_size: int = 128, seed: int = 0
) -> Callable[[nn.Module, int], dict[str, float]]:
    """An `after_epoch` callback that searches the data set's gallery with the model's features as they are.

    At most `max_ids` random identities of the query set and their gallery crops (and all distractors) are kept, in
    memory, so that a probe costs seconds; values of different probes are comparable only for the same `dataset`,
    `max_ids` and `seed`. The callback returns probe_mAP and probe_rank1, fractions. No label is learned from.
    """
    query, gallery = _some_ids(dataset, max_ids, seed)
    parts = [(split, _read(split, height, width)) for split in (query, gallery)]

    def probe(model: nn.Module, epoch: int) -> dict[str, float]:
        device = next(model.parameters()).device
        features = []
        for split, images in parts:
            values = torch.cat([model.embed(batch.to(device)).cpu() for batch in images.split(batch_size)])
            features.append(Features(values.numpy(), split.pid, split.camid, split.path))
        result = evaluate_ranking(*features)
        return {"probe_mAP": float(result.mAP), "probe_rank1": float(result.cmc[0])}

    return probe


def _some_ids(dataset: ReidDataset, max_ids: int, seed: int) -> tuple[Split, Split]:
    pids = np.unique(dataset.query.pid)
    if len(pids) > max_ids:
        pids = np.random.default_rng(seed).choice(pids, max_ids, replace=False)
    query = dataset.query.take(np.isin(dataset.query.pid, pids))
    others = ~np.isin(dataset.gallery.pid, dataset.query.pid)
    return query, dataset.gallery.take(np.isin(dataset.gallery.pid, pids) | others)


def _read(split: Split, height: int, width: int) -> torch.Tensor:
    """(N, 3, height, width) uint8."""
    crops = Crops(split.path, lambda image: to_tensor(resize(image, height, width)), replace=False)
    return torch.stack([crops[index][0] for index in range(len(crops))])
