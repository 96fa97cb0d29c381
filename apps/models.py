"""Models in the explorer, loaded once each. Torch is imported on first use, so that pages without a model never need it."""

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st
from loaders import Stamp

from lab.errors import InputError
from lab.runs import Run
from lab.show.images import read_picture

BRANCH_HEADS = ("b1", "b2", "b3")  # what looks at a whole map; each has the name of its branch
ONE_AT_A_TIME = threading.Lock()  # sessions share a model, and maps hang hooks on it


@dataclass(frozen=True, eq=False)
class PartMaps:
    """Maps of some heads of an MGN for one or two crops (B): head -> (B, h, w), as few places as the network has.

    `flat` (h, w) by head is 1 where its map can lie: everywhere, or in its stripe. `classes` has, for a class target, the
    training identity that each crop is taken for and the cosine with it, head -> [(identity, cosine)] * B;
    `identities` is how many there are.
    """

    maps: dict[str, np.ndarray]
    flat: dict[str, np.ndarray]
    classes: dict[str, list[tuple[int, float]]]
    identities: int


@st.cache_resource(max_entries=4, show_spinner="Loading the model …")
def load_model(checkpoint: str, files: Stamp):
    """The model in a run's checkpoint.pt, fine-tuned or pre-trained, ready to `embed`."""
    from lab.models import load_model as load

    return load(Run(Path(checkpoint).parent)).eval()


@st.cache_data(max_entries=16, show_spinner=False)
def digest_of(checkpoint: str, files: Stamp) -> str:
    """SHA-256 of a checkpoint, by which stored features say what made them."""
    from lab.weights import weights_digest

    return weights_digest(Path(checkpoint))


@st.cache_data(max_entries=256, show_spinner=False)
def embed_crops(checkpoint: str, files: Stamp, paths: tuple[str, ...], size: tuple[int, int]) -> np.ndarray:
    """Features (B, D) of image files, resized to (height, width) as for an evaluation."""
    model = load_model(checkpoint, files)
    with ONE_AT_A_TIME:
        return model.embed(_read(paths, size)).numpy()


def embed_picture(model, picture: np.ndarray, size: tuple[int, int], flip: bool = False) -> np.ndarray:
    """The feature (D,) of one picture (H, W, 3) uint8, made as an evaluation makes it; nothing of it is kept."""
    import torch
    from PIL import Image

    from lab.data.crops import resize, to_tensor

    images = to_tensor(resize(Image.fromarray(picture), *size))[None]
    with ONE_AT_A_TIME:
        feature = model.embed(images).float()
        if flip:  # the flip test: the sum with the mirror image, at unit length
            feature = torch.nn.functional.normalize(feature + model.embed(images.flip(3)).float())
    return feature[0].numpy()


@st.cache_data(max_entries=128, show_spinner=False)
def part_maps(
    checkpoint: str, files: Stamp, paths: tuple[str, ...], size: tuple[int, int], kind: str, heads: tuple[str, ...]
) -> PartMaps:
    """Maps of an MGN's `heads` for one crop or for each of a pair.

    `kind` is "activation"; "class": Grad-CAM of the training identity that the head's classifier takes the crop for;
    "cosine": Grad-CAM of the cosine with the other crop, of the whole descriptor for b1, b2 and b3 alone, else of each
    head's part; "similarity": how like the other crop's part each place is.
    """
    import torch

    from lab.evaluate.attention import activation_map, grad_cams, similarity_map
    from lab.finetune.mgn import HEADS

    model, images = load_model(checkpoint, files), _read(paths, size)
    layer_of, classes = {head: HEADS[head][0] for head in heads}, {}
    with ONE_AT_A_TIME, torch.inference_mode(False):
        if kind in ("activation", "similarity"):
            with torch.no_grad():
                branches, own = model.maps(images), model.features(images)
            maps = {head: branches[layer_of[head]] for head in heads}
            if kind == "activation":
                maps = {head: activation_map(map_) for head, map_ in maps.items()}
            else:
                maps = {
                    head: similarity_map(map_, model.get_submodule(f"{head}_head"), own[head].flip(0))
                    for head, map_ in maps.items()
                }
        elif kind == "class":
            maps = grad_cams(model, images, lambda images: _class_scores(model, images, heads, classes), layer_of)
        else:
            with torch.no_grad():
                target = model.features(images) if heads != BRANCH_HEADS else {}
            whole = model.embed(images).clone()
            maps = grad_cams(model, images, lambda images: _cosines(model, images, heads, whole, target), layer_of)
    shape = next(iter(maps.values())).shape[1:]
    flat = {head: _stripe(shape, *HEADS[head][1:]) if kind != "similarity" else np.ones(shape) for head in heads}
    found = {head: map_.numpy() * flat[head] for head, map_ in maps.items()}
    return PartMaps(found, flat, classes, len(model.b1_head.classifier.weight))


def heads_of_model() -> dict[str, tuple[str, int, int]]:
    """The eight heads of an MGN: their branch, into how many stripes its map is cut, and which of them they see."""
    from lab.finetune.mgn import HEADS

    return HEADS


def enlarged(cam: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map's few places as a picture (H, W) of 0..1."""
    from lab.evaluate.attention import enlarge

    return enlarge(cam, size)


def scores_of(cam: np.ndarray, mask: np.ndarray, flat: np.ndarray) -> dict[str, float]:
    """How well a map (H, W) finds the true person; `flat` (h, w) is where it can lie at all."""
    from lab.evaluate.attention import enlarge, score_map

    return score_map(cam, mask, None if flat.all() else enlarge(flat, mask.shape))


def _class_scores(model, images, heads: tuple[str, ...], classes: dict) -> dict:
    """The cosine with the training identity that each head's classifier finds nearest; its logit is a multiple of it."""
    from lab.finetune.losses import cosine_logits

    weights, scores = model.class_weights(), {}
    for head, feature in model.features(images).items():
        if head in heads:
            nearest = cosine_logits(feature, weights[head]).max(dim=1)
            scores[head] = nearest.values
            classes[head] = list(zip(nearest.indices.tolist(), nearest.values.tolist(), strict=True))
    return scores


def _cosines(model, images, heads: tuple[str, ...], whole, target: dict) -> dict:
    """Of each crop with the other one: of the whole descriptors for every branch, else of the head's part."""
    import torch.nn.functional as F

    if heads == BRANCH_HEADS:
        return dict.fromkeys(heads, F.cosine_similarity(model(images), whole.flip(0)))
    parts = model.features(images)
    return {head: F.cosine_similarity(parts[head], target[head].flip(0)) for head in heads}


def _stripe(shape: tuple[int, int], stripes: int, place: int) -> np.ndarray:
    """1 in the rows (h, w) that the stripe has, else 0; the upper stripes get a row more, as in the model."""
    rows = np.zeros(shape)
    rows[np.array_split(np.arange(shape[0]), stripes)[place]] = 1
    return rows


def _read(paths: tuple[str, ...], size: tuple[int, int]):
    """Image files as the model takes them (B, 3, H, W) uint8; InputError for one that is no picture or far too large."""
    import torch

    from lab.data.crops import resize, to_tensor
    from lab.data.jpeg import read_image

    for path in paths:
        if read_picture(path) is None:
            raise InputError(f"{path} cannot be read as a picture; replace the file")
    return torch.stack([to_tensor(resize(read_image(path), *size)) for path in paths])
