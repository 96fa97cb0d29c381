"""From crops to features: run a model over a list of crops; and the colour histogram that every model should beat.

Legend: N crops, B crops of one batch, D feature size.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from lab.backbone import autocast
from lab.data.crops import Crops, resize, to_tensor
from lab.data.splits import Split
from lab.errors import InputError
from lab.runs import Features

Embed = Callable[[Tensor], Tensor]  # images (B, 3, H, W) uint8 RGB -> features (B, D)


def extract(
    embed: Embed | nn.Module,
    crops: Split | Sequence[str],
    height: int,
    width: int,
    batch_size: int = 64,
    num_workers: int = 0,
    device: str | torch.device = "cpu",
    amp: str = "off",
    progress: bool = False,
    name: str = "crops",
) -> Features:
    """Embed every crop, in the order given.

    `embed` is a model with `embed(images)` or such a function itself; a model is moved to `device`. Crops are resized
    to `height` x `width` pixels (bicubic, as in the published test). A list of paths gives pid and camid -1. Raises
    InputError for a crop that cannot be read and for features that are not finite.
    """
    if not isinstance(crops, Split):
        crops = Split(crops, np.full(len(crops), -1), np.full(len(crops), -1))
    device = torch.device(device)
    if isinstance(embed, nn.Module):
        embed.to(device)
    function = getattr(embed, "embed", embed)
    loader = DataLoader(
        _Readable(Crops(crops.path, lambda image: to_tensor(resize(image, height, width)), replace=False)),
        batch_size=batch_size,
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
        collate_fn=_collate,
    )
    values, done = None, 0
    with torch.inference_mode(), autocast(device, amp), tqdm(total=len(crops), desc=name, disable=not progress) as bar:
        for images in loader:
            if isinstance(images, str):
                raise InputError(images)
            features = function(images.to(device, non_blocking=True)).float().cpu().numpy()
            if values is None:
                values = np.empty((len(crops), features.shape[1]), dtype=np.float32)
            values[done : done + len(features)] = features
            done += len(features)
            bar.update(len(features))
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise InputError(
            f"the model gives NaN or infinite features for {len(bad)} of {len(values)} crops (first: "
            f"{crops.path[bad[0]]}); its weights are broken: train it again or use an earlier checkpoint"
        )
    return Features(values, crops.pid, crops.camid, crops.path)


def colour_histogram(images: Tensor, stripes: int = 6, bins: int = 8) -> Tensor:
    """Describe a person by the colours of six horizontal stripes: the baseline without any learning.

    Each stripe has a joint RGB histogram of `bins`^3 cells. The square root makes the cosine of two features the mean
    Bhattacharyya coefficient of their stripes. (B, 3, H, W) uint8 -> (B, stripes * bins^3) unit norm.
    """
    count, _, height, _ = images.shape
    level = images.long() * bins // 256
    cell = (level[:, 0] * bins + level[:, 1]) * bins + level[:, 2]  # (B, H, W)
    stripe = torch.arange(height, device=images.device) * stripes // height
    picture = torch.arange(count, device=images.device) * stripes
    cell = cell + (picture.view(-1, 1, 1) + stripe.view(-1, 1)) * bins**3
    histogram = torch.bincount(cell.flatten(), minlength=count * stripes * bins**3).view(count, stripes, -1).float()
    histogram = histogram / histogram.sum(dim=2, keepdim=True).clamp(min=1)  # every stripe weighs the same
    return nn.functional.normalize(histogram.sqrt().flatten(1))


class _Readable(Dataset):
    """Crops whose InputError comes back as text: a DataLoader worker would bury it in its own traceback."""

    def __init__(self, crops: Crops):
        self.crops = crops

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: int) -> Tensor | str:
        try:
            return self.crops[index][0]
        except InputError as error:
            return str(error)


def _collate(items: list[Tensor | str]) -> Tensor | str:
    unreadable = [item for item in items if isinstance(item, str)]
    return unreadable[0] if unreadable else torch.stack(items)
