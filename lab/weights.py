"""Weights files: reading them safely, and saying what is in one.

Knows torchvision's layout, the released LUPerson files, raw checkpoints of the published pre-training (lup_moco),
fast-reid's, the lab's own, and safetensors of any of them. Which tensors go where is decided by the models.
"""

import hashlib
import json
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from lab.errors import InputError
from lab.released import RELEASED, fetch

SHIPPED = "shipped"  # the word for the trunk that comes with the lab
SHIPPED_TRUNK = Path(__file__).parent / "assets" / "trunk-r18-synthetic.safetensors"
IMAGENET = {f"imagenet-r{depth}": depth for depth in (18, 34, 50, 101, 152)}
STATISTICS = ("pixel_mean", "pixel_std")
# where a ResNet trunk lies in a state dict: MoCo, the lab's Embedder, fast-reid's models of one head
TRUNK_PREFIXES = ("encoder_q.", "trunk.", "backbone.")
BLOCKS = {
    ((2, 2, 2, 2), False): 18, ((3, 4, 6, 3), False): 34, ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101, ((3, 8, 36, 3), True): 152,
}  # fmt: skip


def resolve_weights(name: str | Path) -> Path:
    """The file behind --init: a path, a run folder (its checkpoint), or a word.

    The words: "shipped"; "imagenet-r50" (18 to 152), torchvision's ImageNet weights; "lup-r50" and the other names of
    `lab.released`. Files that are not on this machine yet are downloaded. Raises InputError.
    """
    word = str(name)
    if word == SHIPPED:
        return SHIPPED_TRUNK
    if word in IMAGENET:
        return _imagenet(IMAGENET[word])
    if word in RELEASED:
        file = fetch(word)
        _check_released(word, file)
        return file
    path = Path(name)
    return path / "checkpoint.pt" if path.is_dir() else path


def describe_init(init: str | Path | None) -> dict | None:
    """What config.json says about the initial weights: their name and the digest of their bytes."""
    if init is None:
        return None
    file = resolve_weights(init)
    if not file.is_file():
        words = ", ".join([SHIPPED, *IMAGENET, *RELEASED])
        raise InputError(
            f"no weights at {file}; give --init a checkpoint (.pt, .pth, .safetensors), a run or one of {words}"
        )
    return {"weights": str(init), "sha256": weights_digest(file)}


def read_weights(file: Path) -> dict:
    """Read a .safetensors file or a torch checkpoint (weights only: no code inside a file is ever run).

    A safetensors file of the lab that carries a config comes back as {"model": tensors, "config": config}.
    """
    file = Path(file)
    if not file.is_file():
        raise InputError(f"no weights at {file}; give the path of a checkpoint (.pt, .pth or .safetensors)")
    _refuse_text(file)
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    try:
        with torch.serialization.safe_globals(_NUMPY_NUMBERS):
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


def unwrap(content: Mapping) -> dict[str, Tensor]:
    """The state dict inside a checkpoint's content (entry state_dict or model), without DDP's prefix `module.`."""
    for entry in ("state_dict", "model"):
        if isinstance(content.get(entry), Mapping):
            content = content[entry]
    return {key.removeprefix("module."): value for key, value in content.items() if isinstance(value, Tensor)}


def trunk_state(content: Mapping) -> dict[str, Tensor]:
    """The torchvision-named trunk tensors inside a checkpoint's content (and its pixel statistics, if any)."""
    state = unwrap(content)
    for prefix in TRUNK_PREFIXES:
        if f"{prefix}conv1.weight" in state:
            inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            return inside | {key: state[key] for key in STATISTICS if key in state}
    return state if "conv1.weight" in state else {}


def depth_of(state: Mapping[str, object], prefix: str = "") -> int:
    """Depth of the torchvision-named ResNet in a state dict, from the number of blocks in each layer."""
    pattern = re.compile(re.escape(prefix) + r"layer(\d)\.(\d+)\.conv1\.weight")
    found = [match for match in map(pattern.fullmatch, state) if match]
    blocks = tuple(sum(match[1] == layer for match in found) for layer in "1234")
    bottleneck = f"{prefix}layer1.0.conv3.weight" in state
    if (blocks, bottleneck) not in BLOCKS:
        raise InputError(f"the layers have {blocks} blocks; expected a ResNet-18, 34, 50, 101 or 152")
    return BLOCKS[blocks, bottleneck]


def trunk_depth(content: Mapping, source: str) -> int:
    """Depth of the ResNet trunk inside a checkpoint's content; raises InputError that says what is there instead."""
    found = trunk_state(content)
    if not found:
        raise InputError(f"{source} holds no trunk but {describe_weights(content)}; give the weights of a ResNet trunk")
    return depth_of(found)


def is_mgn(content: Mapping) -> bool:
    """Whether a checkpoint's content is a fine-tuned MGN, published or the lab's own."""
    return "b1_head.classifier.weight" in unwrap(content)


def is_imagenet(state: Mapping[str, Tensor]) -> bool:
    """Whether a trunk comes with torchvision's classifier of 1,000 classes: trained on ImageNet with labels."""
    return len(state.get("fc.bias", ())) == 1000


def describe_weights(content: Mapping) -> str:
    """What a checkpoint's content is, in words for a sentence such as "FILE holds ...".

    Every message about the wrong kind of weights uses this, so that it says which kind was given.
    """
    state = unwrap(content)
    for sign, words in _KINDS:
        if any(sign(key) for key in state):
            return words
    if "conv1.weight" in state:
        try:
            name = f"ResNet-{depth_of(state)}"
        except InputError:
            name = "ResNet of unusual depth"
        return f"a bare {name} trunk" + (" with ImageNet's classifier" if is_imagenet(state) else "")
    keys = list(state) or [str(key) for key in content]
    return f"something unknown (its first entries are {', '.join(keys[:4]) or 'none'})"


_KINDS: list[tuple[Callable[[str], bool], str]] = [
    (lambda key: key.startswith(("b1_head.", "b1.0.")), "a fine-tuned MGN (`lab evaluate --weights` takes it)"),
    (lambda key: ".bn1.IN." in key, "a ResNet with instance norm (IBN), a network that the lab does not have"),
    (lambda key: ".attn." in key, "a vision transformer"),
    (
        lambda key: key.startswith("encoder_q."),
        "a raw MoCo pre-training checkpoint (encoder_q), which goes to --init of fine-tuning",
    ),
    (lambda key: key.startswith("encoder_k."), "a MoCo checkpoint without its query encoder"),
    (lambda key: key.startswith("backbone.layer1."), "a fast-reid model with one head (bag of tricks, SBS), not MGN"),
]


# A checkpoint may hold numbers of numpy, such as a best score; they are data and need no other class to be read.
_NUMPY_NUMBERS = [
    np.dtype,
    np.ndarray,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")),
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
    np._core.multiarray.scalar,
]


def _refuse_text(file: Path) -> None:
    """A page or a pointer was saved in place of the weights: say so instead of failing to unpickle it."""
    with open(file, "rb") as stream:
        start = stream.read(200).lstrip().lower()
    if start.startswith(b"<"):
        raise InputError(f"{file} holds a web page in place of weights; the download was refused, get the file again")
    if start.startswith(b"version https://git-lfs"):
        raise InputError(f"{file} is a Git LFS pointer of a few bytes and no weights; get the file behind it")


def _read_safetensors(file: Path) -> dict:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as stored:
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 (it is no dict)
            config = (stored.metadata() or {}).get("config")
        return tensors if config is None else {"model": tensors, "config": json.loads(config)}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as safetensors ({error}); get the file again") from error


@contextmanager
def _download_errors(what: str) -> Iterator[None]:
    try:
        yield
    except (URLError, OSError, RuntimeError) as error:
        raise InputError(f"{what} cannot be downloaded ({error}); get it elsewhere and give its path") from error


def _imagenet(depth: int) -> Path:
    """torchvision's own download of ImageNet weights (V1, as the published baselines), in torch's own cache."""
    from torchvision.models import get_model_weights

    url = get_model_weights(f"resnet{depth}").IMAGENET1K_V1.url
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not file.is_file():
        with _download_errors(f"the ImageNet weights of ResNet-{depth}"):
            torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True)
    return file


def _check_released(word: str, file: Path) -> None:
    """Raise InputError unless a released file holds what its name says."""
    release, content = RELEASED[word], read_weights(file)
    trunk = trunk_state(content)
    right = bool(trunk) and depth_of(trunk) == release.depth if release.kind == "trunk" else not trunk
    if not right:
        raise InputError(
            f"{file} was kept as '{word}' and holds {describe_weights(content)}; expected {release.what}: remove it and "
            "download it again"
        )
