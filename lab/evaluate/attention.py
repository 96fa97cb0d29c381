"""Where a model looks: Grad-CAM maps (Selvaraju et al., 2017) for features, and how much of a map lies on the person.

Legend: H, W size of the image; h, w size of the layer's map; D feature size.
"""

import inspect

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
    try:
        with torch.inference_mode(False), torch.enable_grad(), GradCAM(wrapper, [wrapper.layer]) as grad_cam:
            pixels = torch.tensor(image, device=device).permute(2, 0, 1).unsqueeze(0).float()
            if size is not None:
                pixels = F.interpolate(pixels, size=size, mode="bicubic", antialias=True).clamp(0, 255)
            target = _length if target_feature is None else _cosine_with(torch.tensor(target_feature, device=device))
            cam = grad_cam(pixels.requires_grad_(), targets=[target])[0]
    finally:
        wrapper.handle.remove()
        model.zero_grad(set_to_none=True)
        model.train(was_training)
    if cam.shape != image.shape[:2]:
        cam = np.asarray(Image.fromarray(cam).resize((image.shape[1], image.shape[0]), Image.Resampling.BILINEAR))
    return np.clip(cam, 0, 1).astype(np.float32)


def energy_on_mask(cam: np.ndarray, mask: np.ndarray) -> float:
    """Share of the map's total that lies on the mask: both (H, W), 0..1; NaN for a map that is zero everywhere."""
    total = cam.sum(dtype=np.float64)
    return float(cam[mask.astype(bool)].sum(dtype=np.float64) / total) if total > 0 else float("nan")


def pointing_game(cam: np.ndarray, mask: np.ndarray) -> bool:
    """Whether the map's highest point lies on the mask (the first one in reading order, if several are as high)."""
    return bool(mask.astype(bool).flat[int(cam.argmax())])


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


def _cosine_with(target: Tensor):
    return lambda feature: F.cosine_similarity(feature, target.to(feature.dtype), dim=0)


def _length(feature: Tensor) -> Tensor:
    return torch.linalg.vector_norm(feature)


def _has(model: nn.Module, name: str) -> bool:
    return any(name == own for own, _ in model.named_modules())
