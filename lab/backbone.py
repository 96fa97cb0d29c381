"""The ResNet trunk that all stages share, and how weights get into it.

Every model of the lab takes RGB images (B, 3, H, W), uint8 or float in 0..255, and normalises them itself: mean and
std are buffers that travel in its checkpoint. Legend: B images in a batch, D feature size.
"""

import hashlib
import pickle
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from zipfile import BadZipFile

import torch
from torch import Tensor, nn
from torchvision.models import resnet as torchvision_resnet

from lab.errors import InputError
from lab.runs import replacing
from lab.small_maps import use_for_small_maps

LUPERSON_MEAN = (0.3525 * 255, 0.3106 * 255, 0.3140 * 255)  # statistics of LUPerson, as pre-training used them
LUPERSON_STD = (0.2660 * 255, 0.2522 * 255, 0.2505 * 255)
IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)

DEPTHS = (18, 34, 50, 101, 152)
SHIPPED_TRUNK = Path(__file__).parent / "assets" / "trunk-r18-synthetic.safetensors"
SHIPPED = "shipped"  # the word for it on the command line


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

    @torch.inference_mode()
    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB 0..255 -> (B, D) unit norm. Uses the statistics of training (eval mode)."""
        self.eval()
        return nn.functional.normalize(self.trunk(normalise(self, images)))


def register_pixel_statistics(model: nn.Module, mean, std) -> None:
    """Give `model` the buffers pixel_mean and pixel_std (1, 3, 1, 1), in units of 0..255."""
    model.register_buffer("pixel_mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
    model.register_buffer("pixel_std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))


def normalise(model: nn.Module, images: Tensor) -> Tensor:
    """(B, 3, H, W) RGB 0..255 -> zero mean and unit deviation in the model's own statistics."""
    return (images.float() - model.pixel_mean) / model.pixel_std


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


def load_trunk(model: nn.Module, path_or_dict: str | Path | dict) -> LoadReport:
    """Put pre-trained trunk weights into `model` and say what was loaded, what is missing and what was not used.

    Understands torchvision names, raw MoCo checkpoints (`module.encoder_q.*`), the lab's own checkpoints and
    safetensors files; `path_or_dict` may also be the dict itself or "shipped". `model` is a torchvision-named trunk
    or has `trunk_targets()`, which says where each tensor goes (MGN copies some into three branches). Raises
    InputError, and leaves the model as it was, when less than 90 % of the trunk can be loaded.
    """
    source, content = _read(path_or_dict)
    found = trunk_state(content)
    if not found:
        raise InputError(f"{source} holds no trunk: {_looks_like(content)}; give the weights of a ResNet trunk")
    own = model.state_dict()
    has_targets = hasattr(model, "trunk_targets")
    targets = model.trunk_targets() if has_targets else {key: [key] for key in own if not key.startswith("fc.")}
    report = LoadReport(
        source,
        loaded=[key for key in targets if key in found and found[key].shape == own[targets[key][0]].shape],
        missing=[key for key in targets if key not in found and not key.endswith("num_batches_tracked")],
        unexpected=[key for key in found if key not in targets and not key.startswith("pixel_")],
        wrong_shape=[key for key in targets if key in found and found[key].shape != own[targets[key][0]].shape],
        pixel_statistics="pixel_mean" in found and "pixel_mean" in own,
    )
    if report.fraction < 0.9:
        raise InputError(f"these weights do not fit the trunk ({report}); expected at least 90 %: check depth and file")
    filled = {target: found[key] for key in report.loaded for target in targets[key]}
    if report.pixel_statistics:
        filled |= {name: found[name].reshape(own[name].shape) for name in ("pixel_mean", "pixel_std")}
    model.load_state_dict(own | filled)
    return report


def trunk_state(content: dict) -> dict[str, Tensor]:
    """The torchvision-named trunk tensors inside a checkpoint's content (and its pixel statistics, if any)."""
    state = content
    for entry in ("state_dict", "model"):
        if isinstance(state.get(entry), dict):
            state = state[entry]
    state = {key.removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}
    for prefix in ("encoder_q.", "trunk."):
        inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if inside:
            statistics = {key: value for key, value in state.items() if key in ("pixel_mean", "pixel_std")}
            return statistics | inside
    return state if "conv1.weight" in state else {}


def depth_of(state: dict[str, Tensor], prefix: str = "") -> int:
    """Depth of the torchvision-named ResNet in a state dict, from the number of blocks in each layer."""
    pattern = re.compile(re.escape(prefix) + r"layer(\d)\.(\d+)\.conv1\.weight")
    found = [match for match in map(pattern.fullmatch, state) if match]
    blocks = tuple(sum(match[1] == layer for match in found) for layer in "1234")
    bottleneck = f"{prefix}layer1.0.conv3.weight" in state
    known = {
        ((2, 2, 2, 2), False): 18, ((3, 4, 6, 3), False): 34, ((3, 4, 6, 3), True): 50,
        ((3, 4, 23, 3), True): 101, ((3, 8, 36, 3), True): 152,
    }  # fmt: skip
    if (blocks, bottleneck) not in known:
        raise InputError(f"the layers have {blocks} blocks; expected a ResNet-18, 34, 50, 101 or 152")
    return known[blocks, bottleneck]


def save_trunk(source: str | Path, out: Path, half: bool = False) -> LoadReport:
    """Write the trunk inside any readable weights as a safetensors file of torchvision names with pixel statistics.

    `half` stores 16-bit floats. Statistics that the source does not carry are LUPerson's. Raises InputError.
    """
    from safetensors.torch import save_file

    file = resolve_weights(source)
    content = read_weights(file)
    state = trunk_state(content)
    model = Embedder(depth_of(state) if state else 50)
    report = replace(load_trunk(model, content if state else file), source=str(file))
    dtype = torch.float16 if half else torch.float32
    state = {key.removeprefix("trunk."): value.contiguous() for key, value in model.state_dict().items()}
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    statistics = {key: state[key].float() for key in ("pixel_mean", "pixel_std")}
    try:
        with replacing(Path(out)) as temporary:
            save_file(state | statistics, temporary)
    except OSError as error:
        raise InputError(f"cannot write {out} ({error.strerror}); give --out a writable place") from error
    return report


def read_weights(file: Path) -> dict:
    """Read a .safetensors file or a torch checkpoint (weights only: no code inside a file is ever run)."""
    file = Path(file)
    if not file.is_file():
        raise InputError(f"no weights at {file}; give the path of a checkpoint (.pt, .pth or .safetensors)")
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{file} cannot be read as safetensors ({error}); get the file again") from error
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, BadZipFile, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{file} cannot be read as a checkpoint of plain tensors ({reason[:160]}); get it again"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{file} holds a {type(content).__name__}; expected a dict of tensors")
    return content


def weights_digest(file: Path) -> str:
    """SHA-256 of a weights file: two runs with the same digest started from the same bytes."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def resolve_weights(name: str | Path) -> Path:
    """The file behind --init: a path, a run folder (its checkpoint), or "shipped"."""
    if str(name) == SHIPPED:
        return SHIPPED_TRUNK
    path = Path(name)
    return path / "checkpoint.pt" if path.is_dir() else path


def describe_init(init: str | Path | None) -> dict | None:
    """What config.json says about the initial weights: their name and the digest of their bytes."""
    if init is None:
        return None
    file = resolve_weights(init)
    if not file.is_file():
        raise InputError(
            f"no weights at {file}; give --init a checkpoint (.pt, .pth, .safetensors), a run or '{SHIPPED}'"
        )
    return {"weights": str(init), "sha256": weights_digest(file)}


def pick_device(name: str) -> torch.device:
    """ "auto" is the first CUDA GPU if there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"there is no device '{name}'; choose auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device '{name}' was asked for and this machine has no CUDA GPU; choose cpu or auto")
    return device


def autocast(device: torch.device, amp: str) -> AbstractContextManager:
    """Mixed precision where the hardware has it: `amp` is "auto", "bfloat16" or "off".

    "auto" is bfloat16 on CUDA and on CPUs that multiply bfloat16 themselves (AMX: 2-3 times faster, AVX512-BF16: about
    1.7 times); other CPUs would emulate it and become slower, so they stay in float32.
    """
    if amp not in ("auto", "bfloat16", "off"):
        raise InputError(f"amp is '{amp}'; choose auto, bfloat16 or off")
    fast = device.type == "cuda" or (device.type == "cpu" and _cpu_has_bfloat16())
    if amp == "off" or (amp == "auto" and not fast):
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16 products; torch tells it in functions that came one by one."""
    asked = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("amx_tile", "avx512_bf16"))
    return any(ask() for ask in asked if ask is not None)


def _read(path_or_dict: str | Path | dict) -> tuple[str, dict]:
    if isinstance(path_or_dict, dict):
        return "the given dict", path_or_dict
    file = resolve_weights(path_or_dict)
    return str(file), read_weights(file)


_SIGNS: list[tuple[Callable[[str], bool], str]] = [
    (lambda key: key.startswith("b1_head.") or key.startswith("b1.0."), "it looks like a fine-tuned MGN"),
    (lambda key: "blocks.0.attn" in key, "it looks like a vision transformer"),
    (lambda key: key.startswith("encoder_k."), "it looks like a MoCo checkpoint without its query encoder"),
]


def _looks_like(content: dict) -> str:
    state = content.get("model", content.get("state_dict", content))
    keys = [str(key).removeprefix("module.") for key in (state if isinstance(state, dict) else content)]
    for sign, sentence in _SIGNS:
        if any(sign(key) for key in keys):
            return sentence
    return f"its first entries are {', '.join(keys[:4]) or 'none'}"
