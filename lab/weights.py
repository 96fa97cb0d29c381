"""Weights files: reading them safely, and saying what is in one.

Knows torchvision's layout, the released LUPerson files, raw checkpoints of the published pre-training (lup_moco),
fast-reid's, the lab's own, and safetensors of any of them. Which tensors go where is decided by the models.
"""

import hashlib
import json
import pickle
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
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
WORDS = (SHIPPED, *IMAGENET, *RELEASED)
STATISTICS = ("pixel_mean", "pixel_std")
WRAPPINGS = ("state_dict", "model", "net", "model_state_dict")  # entries of a checkpoint that hold its state dict
PREFIXES = re.compile(r"^(?:module\.|_orig_mod\.)+")  # of DDP and torch.compile
# where a ResNet trunk lies in a state dict: MoCo, the lab's Embedder, fast-reid's and BoT's models of one head
TRUNK_PREFIXES = ("", "encoder_q.", "trunk.", "backbone.", "base.")
BLOCKS = {
    ((2, 2, 2, 2), False): 18, ((3, 4, 6, 3), False): 34, ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101, ((3, 8, 36, 3), True): 152,
}  # fmt: skip
MGN_DEPTH_KEYS = ("backbone.4.", "backbone.5.", "b1.0.", "b1.1.")  # the layers; layer3's first block is in the backbone


@dataclass(frozen=True)
class Weights:
    """What the content of a weights file is.

    `kind` is "mgn" (a fine-tuned MGN with the published keys), "moco" (both encoders and the queue), "trunk" (a ResNet
    trunk, alone or inside another model) or "other"; `words` say it in a sentence such as "FILE holds ...". `state` is
    the state dict, `trunk` its torchvision-named trunk tensors (empty for MGN and other things), `beside` the names of
    what lies beside the trunk, `depth` that of the ResNet if it has one. `labelled`: trained on ImageNet with labels.
    `config` are the settings that the lab wrote into the file.
    """

    kind: str
    words: str
    state: dict[str, Tensor]
    trunk: dict[str, Tensor] = field(default_factory=dict)
    beside: list[str] = field(default_factory=list)
    depth: int | None = None
    labelled: bool = False
    config: dict = field(default_factory=dict)


def identify(content: Mapping) -> Weights:
    """Recognise the content of a weights file. Every message about wrong weights takes its words from here."""
    state = unwrap(content)
    config = content["config"] if isinstance(content.get("config"), dict) else {}
    if "b1_head.classifier.weight" in state and "backbone.4.0.conv1.weight" in state:
        depth = _depth_of_mgn(state)
        identities = len(state["b1_head.classifier.weight"])
        words = f"a fine-tuned MGN ({_resnet(depth)}, {identities} identities; `lab evaluate --weights` takes it)"
        return Weights("mgn", words, state, depth=depth, config=config)
    if words := _foreign(state):
        return Weights("other", words, state, config=config)
    for prefix in TRUNK_PREFIXES:
        if f"{prefix}conv1.weight" in state:
            return _with_trunk(state, prefix, config)
    keys = list(state) or [str(key) for key in content]
    return Weights("other", f"something unknown (its first entries are {', '.join(keys[:4]) or 'none'})", state)


def _with_trunk(state: dict[str, Tensor], prefix: str, config: dict) -> Weights:
    trunk = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    trunk |= {key: state[key] for key in STATISTICS if key in state}
    beside = [key for key in state if not key.startswith((prefix, "encoder_k.", "queue")) and key not in STATISTICS]
    depth = _depth_or_none(trunk)
    if prefix == "encoder_q." and {"encoder_k.conv1.weight", "queue"} <= set(state):
        words = f"a raw MoCo pre-training checkpoint ({_resnet(depth)}), which goes to --init of fine-tuning"
        return Weights("moco", words, state, trunk, beside, depth, config=config)
    if prefix == "encoder_q.":
        words = f"the query encoder of a MoCo checkpoint ({_resnet(depth)}), which goes to --init of fine-tuning"
        return Weights("trunk", words, state, trunk, beside, depth, config=config)
    labelled = len(trunk.get("fc.bias", ())) == 1000 or config.get("labelled", False)
    words = f"a bare {_resnet(depth)} trunk" if not beside else f"a {_resnet(depth)} with other parts ({beside[0]}, …)"
    words += " with ImageNet's classifier" if "fc.bias" in trunk and labelled else ""
    return Weights("trunk", words, state, trunk, beside, depth, labelled, config)


def _foreign(state: Mapping[str, Tensor]) -> str:
    """Networks that are often met and that the lab has not, in words; "" if it is none of them."""
    for pattern, words in (
        (r"b1_head\.|b1\.0\.", "an MGN of another layout than the published one (no b1_head.classifier.weight)"),
        (r"(.*\.)?blocks\.\d+\.attn\.|(.*\.)?layers\.\d+\.blocks\.\d+\.attn\.", "a vision transformer"),
        (r".*\.bn1\.(IN|BN)\.", "a ResNet with instance norm (IBN), a network that the lab does not have"),
        (r".*layer\d\.\d+\.se\w*\.", "a ResNet with squeeze-and-excitation, a network that the lab does not have"),
        (r".*NL_\d\.", "a ResNet with non-local blocks, a network that the lab does not have"),
    ):
        if any(re.match(pattern, key) for key in state):
            return words
    for key, value in state.items():
        if key.endswith("layer1.0.conv2.weight") and value.ndim == 4 and tuple(value.shape[:2]) != (64, 64):
            return "a ResNeXt or a wide ResNet, networks that the lab does not have"
    if any(key.startswith("encoder_k.") for key in state) and "encoder_q.conv1.weight" not in state:
        return "a MoCo checkpoint without its query encoder"
    return ""


def _resnet(depth: int | None) -> str:
    return f"ResNet-{depth}" if depth else "ResNet of unusual depth"


def unwrap(content: Mapping) -> dict[str, Tensor]:
    """The state dict inside a checkpoint's content, without the prefixes of DDP (`module.`) and torch.compile."""
    for _ in range(2):
        content = next((content[entry] for entry in WRAPPINGS if isinstance(content.get(entry), Mapping)), content)
    return {PREFIXES.sub("", str(key)): value for key, value in content.items() if isinstance(value, Tensor)}


def depth_of(state: Iterable[str], prefix: str = "") -> int:
    """Depth of the torchvision-named ResNet in a state dict, from the number of blocks in each layer."""
    keys = set(state)
    pattern = re.compile(re.escape(prefix) + r"layer(\d)\.(\d+)\.conv1\.weight")
    found = [match for match in map(pattern.fullmatch, keys) if match]
    blocks = tuple(sum(match[1] == layer for match in found) for layer in "1234")
    bottleneck = f"{prefix}layer1.0.conv3.weight" in keys
    if (blocks, bottleneck) not in BLOCKS:
        raise InputError(f"the layers have {blocks} blocks; expected a ResNet-18, 34, 50, 101 or 152")
    return BLOCKS[blocks, bottleneck]


def _depth_or_none(state: Iterable[str]) -> int | None:
    try:
        return depth_of(state)
    except InputError:
        return None


def _depth_of_mgn(state: Iterable[str]) -> int | None:
    """Depth of an MGN's ResNet, or None: its keys number the layers and branches."""
    keys = set(state)
    blocks = [len({key[len(part) :].split(".")[0] for key in keys if key.startswith(part)}) for part in MGN_DEPTH_KEYS]
    blocks[2] += 1  # layer3's first block
    return BLOCKS.get((tuple(blocks), "backbone.4.0.conv3.weight" in keys))


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Raise InputError if a tensor holds NaN or infinite numbers: what is made of it would be NaN too."""
    for key, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise InputError(f"{source} holds NaN or infinite numbers (in {key}); its training broke down: get another")


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
        return released_file(word)
    path = Path(name)
    file = path / "checkpoint.pt" if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"no weights at {file}; give a checkpoint (.pt, .pth, .safetensors), a run folder or one of {', '.join(WORDS)}"
        )
    return file


def describe_init(init: str | Path | None) -> dict | None:
    """What config.json says about the initial weights: their name and the digest of their bytes."""
    return None if init is None else {"weights": str(init), "sha256": weights_digest(resolve_weights(init))}


def weights_digest(file: Path) -> str:
    """SHA-256 of a weights file: two runs with the same digest started from the same bytes."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def released_file(word: str, folder: Path | None = None) -> Path:
    """The released file of that name, downloaded if need be; its content is checked before its first use."""
    return fetch(word, folder, lambda file: _check_released(word, file))


def _check_released(word: str, file: Path) -> None:
    """Raise InputError unless a file holds what its released name says: kind, depth, identities."""
    release, found = RELEASED[word], identify(read_weights(file))
    right = (found.kind, found.depth) == (release.kind, release.depth)
    if release.identities is not None and found.kind == "mgn":
        right &= len(found.state["b1_head.classifier.weight"]) == release.identities
    if not right:
        raise InputError(
            f"{file} is kept as '{word}' and holds {found.words}; expected {release.what}: remove it and get the right one"
        )


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
        with torch.serialization.safe_globals(_NUMPY_NUMBERS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about TorchScript and old formats: the sentence below says what matters
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(_explain_pickle(file, str(error))) from error
    except (RuntimeError, EOFError, BadZipFile, OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{file} cannot be read as a checkpoint of torch ({type(error).__name__}); it is cut short or another kind of "
            "file: get it again"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{file} holds a {type(content).__name__}; expected a dict of tensors")
    return content


# A checkpoint may hold numbers of numpy, such as a best score; they are data and need no other class to be read.
_NUMPY_NUMBERS = [
    np.dtype,
    np.ndarray,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")),
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
    np._core.multiarray.scalar,
]


def _explain_pickle(file: Path, error: str) -> str:
    """torch's pages about a pickle it refuses, as one sentence."""
    if found := re.search(r"GLOBAL (\S+)", error):
        return (
            f"{file} holds Python objects ({found[1]}) besides plain tensors, and reading them could run code; where you "
            "trust the file, load it with torch and save its state_dict alone"
        )
    return (
        f"{file} cannot be read as a checkpoint of plain tensors; it is damaged or another kind of file: get it again"
    )


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
