"""Where a model looks: Grad-CAM maps (Selvaraju et al., 2017) for features, and how much of a map lies on the person.

`attention_map` is for one crop, ready to be laid over it. For many crops at once: `grad_cam`, `activation_map` and
`similarity_map` give a layer's few places as they are, and `enlarge` makes a picture of them; `grad_cams` explains
several scores of the same crops, such as one of each part.

Legend: B images in a batch; H, W size of the image; h, w size of the layer's map; C its channels; D feature size.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from lab.errors import InputError

DEFAULT_LAYERS = ("b1", "trunk.layer4", "layer4")  # MGN's first branch, or the end of a plain trunk


def attention_map(
    model: nn.Module,
    image: np.ndarray,
    target_feature: np.ndarray | None = None,
    layer: str | None = None,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Which parts of a crop make its feature what it is: a map (H, W) float32 in 0..1, by the grad-cam package.

    `image` (H, W, 3) uint8 RGB. With `target_feature` (D,), for instance of a gallery crop, the map shows what makes
    the two similar (gradient of their cosine); without, what gives the layer's pooled feature its length. `layer` names
    a submodule that returns a map: MGN has the branches "b1", "b2" and "b3". `size` (height, width) is what the model
    works at, if not the image's own. The model is left as it was, also its training mode.
    """
    from pytorch_grad_cam import GradCAM

    name = layer if layer is not None else next((name for name in DEFAULT_LAYERS if _has(model, name)), "")
    if not name or not _has(model, name):
        raise InputError(f"the model has no layer '{name}' to look at; name a submodule that returns a map, such as b1")
    device = next(model.parameters()).device
    was_training = model.training
    wrapper = _Descriptor(model, model.get_submodule(name), pooled=target_feature is None)
    learning = _freeze(model)  # their gradients would cost four times as much as all else
    try:
        with torch.inference_mode(False), torch.enable_grad(), GradCAM(wrapper, [wrapper.layer]) as grad_cam:
            pixels = torch.tensor(image, device=device).permute(2, 0, 1).unsqueeze(0).float()
            if size is not None:
                pixels = F.interpolate(pixels, size=size, mode="bicubic", antialias=True).clamp(0, 255)
            target = _length if target_feature is None else _cosine_with(torch.tensor(target_feature, device=device))
            cam = grad_cam(pixels.requires_grad_(), targets=[target])[0]
    finally:
        wrapper.handle.remove()
        for parameter in learning:
            parameter.requires_grad_(True)
        model.train(was_training)
    if cam.shape != image.shape[:2]:
        cam = np.asarray(Image.fromarray(cam).resize((image.shape[1], image.shape[0]), Image.Resampling.BILINEAR))
    return np.clip(cam, 0, 1).astype(np.float32)


def grad_cam(
    model: nn.Module,
    images: Tensor,
    score: Callable[[Tensor], Tensor],
    layers: Sequence[str] = ("b1", "b2", "b3"),
) -> dict[str, Tensor]:
    """Grad-CAM of many crops and several layers at once: layer name -> (B, h, w) of 0 or more, not scaled.

    `images` (B, 3, H, W) RGB 0..255, uint8 or float. `score(images)` (B,) is what is explained, each image's from that
    image alone, such as the cosine of its feature with another crop's (a clone of what `embed` returns, which cannot take
    part in gradients). The model is used in eval mode and left as it was.
    """
    with _watched(model, layers) as kept:
        total = score(images.clone().float().requires_grad_()).sum()
        gradients = torch.autograd.grad(total, [kept[name] for name in layers])
    return {name: _weighted(gradient, kept[name]) for name, gradient in zip(layers, gradients, strict=True)}


def grad_cams(
    model: nn.Module,
    images: Tensor,
    scores: Callable[[Tensor], Mapping[str, Tensor]],
    layer_of: Mapping[str, str],
) -> dict[str, Tensor]:
    """Grad-CAM of several scores of the same crops, each at a layer of its own, for one forward pass.

    `scores(images)` has (B,) for each name, `layer_of` the layer at which it is explained: name -> (B, h, w) as
    `grad_cam` gives it. One backward pass per name goes from the score to its layer, which for the heads of an MGN is
    next to nothing beside the trunk.
    """
    found = {}
    with _watched(model, set(layer_of.values())) as kept:
        named = scores(images.clone().float().requires_grad_())
        for name, layer in layer_of.items():
            gradient = torch.autograd.grad(named[name].sum(), kept[layer], retain_graph=True)[0]
            found[name] = _weighted(gradient, kept[layer])
    return found


@contextmanager
def _watched(model: nn.Module, layers: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """What these layers return in a forward pass within, with gradients; the model is in eval mode, and then as before."""
    kept, was_training, learning = {}, model.training, _freeze(model.eval())
    handles = [
        model.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: kept.update({name: output}))
        for name in layers
    ]
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield kept
    finally:
        for handle in handles:
            handle.remove()
        for parameter in learning:
            parameter.requires_grad_(True)
        model.train(was_training)


def _weighted(gradient: Tensor, maps: Tensor) -> Tensor:
    """Channels (B, C, h, w) added up with their mean gradients, without what speaks against the score: (B, h, w)."""
    return F.relu((gradient.mean(dim=(2, 3), keepdim=True) * maps.detach()).sum(dim=1))


@torch.no_grad()
def activation_map(maps: Tensor) -> Tensor:
    """How strongly a layer answers at each place, whatever for: (B, C, h, w) -> length of the C numbers (B, h, w)."""
    return torch.linalg.vector_norm(maps, dim=1)


@torch.no_grad()
def similarity_map(maps: Tensor, head: Callable[[Tensor], Tensor], target: Tensor) -> Tensor:
    """How like another crop each place is if the head sees that place alone: cosines (B, h, w).

    `maps` (B, C, h, w) of a branch, `head` makes features (N, D) of maps (N, C, 1, 1), `target` (B, D) are the features
    that the same or another head has of the other crops.
    """
    count, channels, rows, columns = maps.shape
    places = maps.permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)
    features = head(places).reshape(count, rows * columns, -1)
    return F.cosine_similarity(features, target[:, None], dim=2).reshape(count, rows, columns)


def enlarge(cam: Tensor | np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The few places (h, w) of a map as a picture (H, W) float32 from 0 to 1: bilinear, lowest 0, highest 1.

    A map that is the same everywhere has no lowest place: it becomes 0.
    """
    values = torch.as_tensor(cam).detach().float().cpu()[None, None]
    values = F.interpolate(values, size=size, mode="bilinear", align_corners=False)[0, 0]
    values = values - values.min()
    return (values / values.max().clamp(min=torch.finfo(torch.float32).tiny)).numpy()


def energy_on_mask(cam: np.ndarray, mask: np.ndarray) -> float:
    """Share of the map's total that lies on the mask: both (H, W), 0..1; NaN for a map that is zero everywhere."""
    total = cam.sum(dtype=np.float64)
    return float(cam[mask.astype(bool)].sum(dtype=np.float64) / total) if total > 0 else float("nan")


def pointing_game(cam: np.ndarray, mask: np.ndarray) -> float:
    """1 if the map's highest point lies on the mask, else 0; where several are as high, the share of them that does.

    An enlarged map has many such points where its highest place is at the border.
    """
    return float(mask.astype(bool)[cam >= cam.max() - 1e-6].mean())


def score_map(cam: np.ndarray, mask: np.ndarray, flat: np.ndarray | None = None) -> dict[str, float]:
    """How well a map (H, W) finds the person: "energy" and "pointing" as above, and "chance", what a flat map gets.

    Chance is the person's share of the pixels, or of `flat` (H, W) where the map can lie in a part of the crop only. A
    map that is zero everywhere has NaN for both scores.
    """
    energy = energy_on_mask(cam, mask)
    pointing = pointing_game(cam, mask) if np.isfinite(energy) else float("nan")
    chance = energy_on_mask(np.ones(mask.shape) if flat is None else flat, mask)
    return {"energy": energy, "chance": chance, "pointing": pointing}


class _Descriptor(nn.Module):
    """A model whose forward returns a tensor that gradients reach, which is what grad-cam needs.

    `embed` forbids gradients, so the function under its inference_mode decorator is called.
    """

    def __init__(self, model: nn.Module, layer: nn.Module, pooled: bool):
        super().__init__()
        self.model, self.layer, self.pooled = model, layer, pooled
        self.map: Tensor | None = None
        self.handle = layer.register_forward_hook(self._keep)
        self.function = inspect.unwrap(type(model).embed)

    def _keep(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        self.map = output

    def forward(self, images: Tensor) -> Tensor:
        feature = self.function(self.model, images)
        return self.map.mean(dim=(2, 3)) if self.pooled else feature


def _freeze(model: nn.Module) -> list[nn.Parameter]:
    """Ask for no gradients of the parameters; returns those that were learning."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    return learning


def _cosine_with(target: Tensor):
    return lambda feature: F.cosine_similarity(feature, target.to(feature.dtype), dim=0)


def _length(feature: Tensor) -> Tensor:
    return torch.linalg.vector_norm(feature)


def _has(model: nn.Module, name: str) -> bool:
    return any(name == own for own, _ in model.named_modules())
