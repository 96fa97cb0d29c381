"""The ResNet trunk that all stages share, and how weights get into it.

Every model of the lab takes RGB images (B, 3, H, W), uint8 or float in 0..255, and normalises them itself: mean and
std are buffers that travel in its checkpoint. Legend: B images in a batch, D feature size.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import resnet as torchvision_resnet

from lab.distributed import world_size
from lab.errors import InputError
from lab.pixels import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LUPERSON_MEAN,
    LUPERSON_STD,
    check_pixel_statistics,
    normalise,
    register_pixel_statistics,
)
from lab.small_maps import use_for_small_maps
from lab.weights import STATISTICS, Weights, check_finite, depth_of, identify, read_weights, resolve_weights

DEPTHS = (18, 34, 50, 101, 152)


def resnet(depth: int) -> torchvision_resnet.ResNet:
    """A torchvision ResNet with random weights whose `fc` passes the pooled feature through.

    (B, 3, H, W) normalised -> (B, D), D = 512 for depth 18 and 34, 2048 for 50, 101 and 152. All stages keep
    torchvision's parameter names. Raises InputError for another depth.
    """
    if depth not in DEPTHS:
        raise InputError(f"there is no ResNet-{depth}; choose a depth among {', '.join(map(str, DEPTHS))}")
    trunk = getattr(torchvision_resnet, f"resnet{depth}")(weights=None)
    trunk.feature_size = trunk.fc.in_features
    trunk.fc = nn.Identity()
    use_for_small_maps(trunk)
    return trunk


class Embedder(nn.Module):
    """A trunk alone as a model: RGB images 0..255 -> unit-norm pooled features.

    What pre-training leaves behind looks like this, and so does an untrained network.
    """

    def __init__(self, depth: int, pixel_mean=LUPERSON_MEAN, pixel_std=LUPERSON_STD):
        super().__init__()
        self.trunk = resnet(depth)
        register_pixel_statistics(self, pixel_mean, pixel_std)

    def trunk_targets(self) -> dict[str, list[str]]:
        """Where each tensor of a torchvision-named trunk goes in this model."""
        return {key: [f"trunk.{key}"] for key in self.trunk.state_dict()}

    def forward(self, images: Tensor) -> Tensor:
        """The pooled feature at unit length: (B, 3, H, W) RGB 0..255 -> (B, D)."""
        return nn.functional.normalize(self.trunk(normalise(self, images)))

    @torch.inference_mode()
    def embed(self, images: Tensor) -> Tensor:
        """`forward` with the statistics of training (eval mode), without gradients."""
        self.eval()
        return self(images)


@dataclass(frozen=True)
class LoadReport:
    """What happened to each key when weights were loaded into a trunk."""

    source: str
    loaded: list[str]
    missing: list[str]  # the trunk has them, the file has not
    unexpected: list[str]  # the file has them, the trunk has not (projection heads are expected here)
    wrong_shape: list[str] = field(default_factory=list)
    pixel_statistics: bool = False  # the file carried pixel_mean and pixel_std, and the model took them over

    @property
    def fraction(self) -> float:
        """Share of the trunk's tensors that were loaded."""
        return len(self.loaded) / max(1, len(self.loaded) + len(self.missing) + len(self.wrong_shape))

    def __str__(self) -> str:
        def listed(name: str, keys: list[str]) -> str:
            shown = ", ".join(keys[:4]) + (", …" if len(keys) > 4 else "")
            return f"{len(keys)} {name}" + (f" ({shown})" if keys else "")

        parts = [
            f"{len(self.loaded)} of {len(self.loaded) + len(self.missing) + len(self.wrong_shape)} tensors loaded",
            listed("missing", self.missing),
            listed("not used", self.unexpected),
            listed("of wrong shape", self.wrong_shape),
        ]
        return f"{self.source}: " + "; ".join(parts)


def load_trunk(model: nn.Module, path_or_dict: str | Path | dict, source: str | None = None) -> LoadReport:
    """Put pre-trained trunk weights into `model` and say what was loaded, what is missing and what was not used.

    Understands torchvision names, raw MoCo checkpoints (`module.encoder_q.*`), the lab's own checkpoints and
    safetensors files; `path_or_dict` may also be the dict itself, or one of the words of `resolve_weights`; `source` is
    how messages call it. `model` is a torchvision-named trunk or has `trunk_targets()`, which says where each tensor
    goes (MGN copies some into three branches). Pixel statistics that come with the weights go into the model: those of
    the file, or ImageNet's if it was trained on ImageNet with labels. Raises InputError, and leaves the model as it
    was, for weights of another kind, network or depth, for those of BGR images, for numbers that are not finite, and
    when less than 90 % of the trunk can be loaded.
    """
    if isinstance(path_or_dict, dict):
        source, content = source or "the given dict", path_or_dict
    else:
        file = resolve_weights(path_or_dict)
        source, content = source or str(file), read_weights(file)
    given = identify(content)
    if not given.trunk:
        raise InputError(f"{source} holds no trunk but {given.words}; give the weights of a ResNet trunk")
    own = model.state_dict()
    has_targets = hasattr(model, "trunk_targets")
    targets = model.trunk_targets() if has_targets else {key: [key] for key in own if not key.startswith("fc.")}
    _refuse_other_depth(given, depth_of(targets), source)
    found, statistics = given.trunk, statistics_of(given, source) if "pixel_mean" in own else {}
    fits = {key: key in found and found[key].shape == own[targets[key][0]].shape for key in targets}
    report = LoadReport(
        source,
        loaded=[key for key, fit in fits.items() if fit],
        missing=[key for key in targets if key not in found and not key.endswith("num_batches_tracked")],
        unexpected=[key for key in found if key not in targets and key not in STATISTICS] + given.beside,
        wrong_shape=[key for key, fit in fits.items() if key in found and not fit],
        pixel_statistics=bool(statistics),
    )
    if report.fraction < 0.9:
        raise InputError(f"these weights do not fit the trunk ({report}); expected at least 90 %: check depth and file")
    filled = {target: found[key] for key in report.loaded for target in targets[key]}
    check_finite({key: found[key] for key in report.loaded}, source)
    model.load_state_dict(own | filled | statistics)
    return report


def _refuse_other_depth(given: Weights, wanted: int, source: str) -> None:
    if given.depth is not None and given.depth != wanted:
        raise InputError(
            f"{source} holds a ResNet-{given.depth} and the model is a ResNet-{wanted}; give --depth {given.depth} or "
            f"weights of a ResNet-{wanted}"
        )


def statistics_of(given: Weights, source: str) -> dict[str, Tensor]:
    """The pixel statistics that weights were trained with, as buffers, if their file says them. Raises InputError."""
    if all(name in given.state for name in STATISTICS):
        mean, std = (given.state[name] for name in STATISTICS)
        check_pixel_statistics(mean, std, source)
    elif given.labelled:
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    else:
        return {}
    return {"pixel_mean": mean.reshape(1, 3, 1, 1), "pixel_std": std.reshape(1, 3, 1, 1)}


def pick_device(name: str) -> torch.device:
    """ "auto" is the first CUDA GPU if there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"there is no device '{name}'; choose auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"there is nothing here for device '{name}'; choose auto, cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device '{name}' was asked for and this machine has no CUDA GPU; choose cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device '{name}' was asked for and this machine has {torch.cuda.device_count()} GPUs, from cuda:0 on"
        )
    if device.index is not None and device.type == "cuda":
        if world_size() > 1:
            raise InputError(f"several processes cannot share '{name}'; leave --device at auto: each takes its own GPU")
        torch.cuda.set_device(device)  # what has no device of its own, such as a stream, is asked of this one
    return device


def autocast(device: torch.device, amp: str) -> AbstractContextManager:
    """Mixed precision where the hardware has it: `amp` is "auto", "bfloat16", "float16" or "off".

    "auto" is bfloat16 on CUDA and on CPUs that multiply bfloat16 themselves (AMX: 2-3 times faster, AVX512-BF16: about
    1.7 times); other CPUs would emulate it and become slower, so they stay in float32. float16 is for GPUs that have no
    bfloat16, and in training needs `lab.training.precision.Precision`.
    """
    if amp not in ("auto", "bfloat16", "float16", "off"):
        raise InputError(f"amp is '{amp}'; choose auto, bfloat16, float16 or off")
    fast = device.type == "cuda" or (device.type == "cpu" and _cpu_has_bfloat16())
    if amp == "off" or (amp == "auto" and not fast):
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.float16 if amp == "float16" else torch.bfloat16)


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16 products; torch tells it in functions that came one by one."""
    asked = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("amx_tile", "avx512_bf16"))
    return any(ask() for ask in asked if ask is not None)
