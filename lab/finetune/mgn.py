"""MGN: one shared trunk, three branches, eight heads that look at the whole person, at halves and at thirds.

    images (B, 3, H, W) -> backbone -> b1 -> [extra BN] -> whole                -> b1
       stem, layer1-2,                  b2 -> [extra BN] -> whole, 2 stripes     -> b2, b21, b22
       layer3[0]                        b3 -> [extra BN] -> whole, 3 stripes     -> b3, b31, b32, b33

Each branch owns a copy of the rest of layer3 and of layer4, each head pools its map, reduces it to 256 numbers and
batch-normalises them; the eight side by side are the descriptor. State-dict keys are those of the published model.
Legend: B images in a batch, C trunk channels, h x w map size, 256 numbers per head.
"""

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.backbone import resnet, statistics_of
from lab.errors import InputError
from lab.pixels import FINETUNE_MEAN, FINETUNE_STD, at_least_float32, normalise, register_pixel_statistics
from lab.weights import check_finite, identify

# head: its branch, into how many stripes that branch's map is cut, and which of them it sees; the order of the
# descriptor
HEADS = {
    "b1": ("b1", 1, 0),
    "b2": ("b2", 1, 0),
    "b3": ("b3", 1, 0),
    "b21": ("b2", 2, 0),
    "b22": ("b2", 2, 1),
    "b31": ("b3", 3, 0),
    "b32": ("b3", 3, 1),
    "b33": ("b3", 3, 2),
}
BRANCHES = ("b1", "b2", "b3")
HEAD_DIM = 256


class GeM(nn.Module):
    """Generalised-mean pooling: p 1 is the average, a large p the maximum, and the power is learned.

    (B, C, h, w) -> (B, C, 1, 1).
    """

    def __init__(self, p: float = 3.0, eps: float = 1e-6):
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), p))
        self.eps = eps

    def forward(self, maps: Tensor) -> Tensor:
        return maps.clamp(min=self.eps).pow(self.p).mean(dim=(2, 3), keepdim=True).pow(1 / self.p)


class Head(nn.Module):
    """Pool a map and reduce it to 256 batch-normalised numbers; `classifier.weight` has a direction per identity.

    The same numbers go to the triplet loss, to the classifier and into the descriptor ("neck feature after"). The
    batch norm's bias stays 0, so that features are centred for the cosine.
    """

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.pool_layer = GeM()
        self.bottleneck = nn.Sequential(nn.Conv2d(channels, HEAD_DIM, 1, bias=False), nn.BatchNorm2d(HEAD_DIM))
        self.classifier = nn.Linear(HEAD_DIM, num_classes, bias=False)
        nn.init.kaiming_normal_(self.bottleneck[0].weight, mode="fan_out")
        nn.init.normal_(self.bottleneck[1].weight, 1.0, 0.02)
        self.bottleneck[1].bias.requires_grad_(False)

    def forward(self, maps: Tensor) -> Tensor:
        return self.bottleneck(self.pool_layer(maps)).flatten(1)  # (B, 256)


class MGN(nn.Module):
    """The multiple granularity network on a ResNet trunk, as LUPerson fine-tunes it (section 5.1).

    `num_classes` identities to tell apart in training, `depth` 18, 34, 50, 101 or 152, `extra_bn` one more batch norm
    on each branch's map, which the paper uses with trunks that were pre-trained without labels. `last_stride` of
    layer4 is 1 in all three branches; 2 saves three quarters of their work, for a CPU. Images are RGB, uint8 or float
    in 0..255, and are taken at the size they have.
    """

    def __init__(
        self,
        num_classes: int,
        depth: int = 50,
        extra_bn: bool = True,
        pixel_mean: tuple[float, ...] = FINETUNE_MEAN,
        pixel_std: tuple[float, ...] = FINETUNE_STD,
        last_stride: int = 1,
    ):
        super().__init__()
        register_pixel_statistics(self, pixel_mean, pixel_std)
        trunk = resnet(depth)
        channels = trunk.feature_size
        for module in trunk.layer4[0].modules():
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                module.stride = (last_stride, last_stride)
        stem = (trunk.conv1, trunk.bn1, trunk.relu, trunk.maxpool)
        self.backbone = nn.Sequential(*stem, trunk.layer1, trunk.layer2, trunk.layer3[0])
        for branch in BRANCHES:
            own = nn.Sequential(nn.Sequential(*trunk.layer3[1:]), trunk.layer4)
            self.add_module(branch, copy.deepcopy(own))
            for head, (of_branch, _, _) in HEADS.items():
                if of_branch == branch:
                    self.add_module(f"{head}_head", Head(channels, num_classes))
        self.extra_bn, self.last_stride = extra_bn, last_stride
        for branch in BRANCHES if extra_bn else ():
            self.add_module(f"heads_extra_bn_{branch}", nn.BatchNorm2d(channels))

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """What each branch sees before pooling: branch name -> (B, C, h, w)."""
        shared = self.backbone(normalise(self, images))
        maps = {branch: self.get_submodule(branch)(shared) for branch in BRANCHES}
        if self.extra_bn:
            maps = {branch: self.get_submodule(f"heads_extra_bn_{branch}")(map_) for branch, map_ in maps.items()}
        return maps

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """What each head says: head name -> (B, 256), in the order of the descriptor.

        A map that does not divide into equal stripes gives the upper ones a row more (8 rows: 3, 3, 2), which is what
        the published torch.chunk does wherever that yields the right number of stripes.
        """
        maps = self.maps(images)
        rows = maps["b3"].shape[2]
        if rows < 3:
            raise InputError(
                f"images of {images.shape[2]} x {images.shape[3]} pixels give a map of {rows} row(s), and the third branch "
                "cuts it into 3 stripes; use taller images or last_stride 1"
            )
        features = {}
        for head, (branch, stripes, position) in HEADS.items():
            stripe = maps[branch].tensor_split(stripes, dim=2)[position]
            features[head] = self.get_submodule(f"{head}_head")(stripe)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """The heads side by side as one descriptor of unit length: (B, 3, H, W) RGB 0..255 -> (B, 2048)."""
        return F.normalize(at_least_float32(torch.cat(list(self.features(images).values()), dim=1)))

    @torch.inference_mode()
    def embed(self, images: Tensor) -> Tensor:
        """The descriptor for retrieval: `forward` in eval mode, without gradients."""
        self.eval()
        return self(images)

    def class_weights(self) -> dict[str, Tensor]:
        """Head name -> (identities, 256), the directions that a head's features are compared with in training."""
        return {head: self.get_submodule(f"{head}_head").classifier.weight for head in HEADS}

    def trunk_parts(self) -> list[nn.Module]:
        """The modules that pre-training fills: the shared trunk and the three branches."""
        return [self.backbone, *(self.get_submodule(branch) for branch in BRANCHES)]

    def heads(self) -> list[Head]:
        return [self.get_submodule(f"{head}_head") for head in HEADS]

    def trunk_targets(self) -> dict[str, list[str]]:
        """ResNet key -> the keys here that hold it: one in the shared trunk, or one in each of the three branches."""
        targets: dict[str, list[str]] = {}
        for key in self.state_dict():
            name = _trunk_name(key)
            if name is not None:
                targets.setdefault(name, []).append(key)
        return targets


def from_official(state_dict: Mapping[str, Tensor], last_stride: int = 1, source: str = "the MGN checkpoint") -> MGN:
    """Build the MGN that a released fine-tuned checkpoint holds; `state_dict` is that file's entry `model`.

    Depth, number of identities and extra batch norm come from the tensors, and so do the pixel statistics that it was
    trained with; only `last_stride` leaves no trace in them. `source` is how messages call it. Raises InputError, which
    says what the given thing looks like instead.
    """
    if "model" in state_dict or "state_dict" in state_dict:
        entries = ", ".join(map(str, list(state_dict)[:6]))
        raise InputError(f"{source} is a whole file with the entries {entries}; expected its `model` entry alone")
    given = identify(state_dict)
    if given.kind != "mgn":
        raise InputError(f"{source} is {given.words}; expected the `model` entry of a fine-tuned MGN")
    if given.depth is None:
        raise InputError(f"{source} is an MGN and no ResNet-18/34/50/101/152; expected a complete one of these")
    statistics = statistics_of(given, source)
    if not statistics:
        raise InputError(
            f"{source} has no pixel_mean and pixel_std; add the statistics (0..255, RGB) that it was trained with to its "
            "state dict, or its features would be wrong"
        )
    state = given.state | statistics
    model = MGN(
        num_classes=len(state["b1_head.classifier.weight"]),
        depth=given.depth,
        extra_bn="heads_extra_bn_b1.weight" in state,
        last_stride=last_stride,
    )
    for key, value in model.state_dict().items():
        if key.endswith("num_batches_tracked"):  # counts nothing that matters and is missing in old files
            state.setdefault(key, torch.zeros_like(value))
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{source} does not fit ({reason}); expected the published MGN's own keys") from error
    check_finite(state, source)
    return model


def _trunk_name(key: str) -> str | None:
    """'b2.0.3.conv1.weight' -> 'layer3.4.conv1.weight'; None for what no ResNet trunk has."""
    part, _, rest = key.partition(".")
    position, _, rest = rest.partition(".")
    if part == "backbone":
        names = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3.0"}
        return f"{names[position]}.{rest}"
    if part in BRANCHES and position == "0":  # the rest of layer3: its first block stayed in the shared trunk
        block, _, rest = rest.partition(".")
        return f"layer3.{int(block) + 1}.{rest}"
    if part in BRANCHES:
        return f"layer4.{rest}"
    return None
