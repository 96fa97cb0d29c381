"""Training as a good engineer writes it in an afternoon from the published recipe: what the lab's speed is compared with.

Pictures are opened, changed one by one by torchvision's transforms and turned into tensors in the workers of a DataLoader;
models are torchvision's, in float32 or under plain autocast, in torch's usual memory format; SGD and Adam are torch's
defaults (on a GPU several tensors at a time, nowhere fused); losses are read at every step, as the published loops log
them. Nothing is slow on purpose. Batch norm sees the whole batch, as in one process of the published code.

Legend: B images in a batch, C size of the projection, K length of the queue, P identities.
"""

import copy
import io
import random
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import lmdb
import torch
import torchvision
from PIL import Image, ImageFilter
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from lab.backbone import autocast
from lab.data.splits import Split
from lab.finetune.sampler import IdentitySampler
from lab.finetune.train import FinetuneConfig
from lab.pixels import FINETUNE_MEAN, FINETUNE_STD
from lab.pretrain.train import PretrainConfig

MEAN, STD = (0.3525, 0.3106, 0.3140), (0.2660, 0.2522, 0.2505)  # of LUPerson, pixels in 0..1
HEADS = {"b1": 1, "b2": 1, "b3": 1, "b21": 2, "b22": 2, "b31": 3, "b32": 3, "b33": 3}  # how many stripes its map has


def pretraining(lmdb_path: Path, keys: list[bytes], config: PretrainConfig, device: torch.device) -> Iterator[float]:
    """One epoch of MoCo v2 on the records of an LMDB; the loss after every step."""
    torch.backends.cudnn.benchmark = True
    crops = StoreCrops(lmdb_path, keys, view_transform(config.height, config.width))
    model = (
        MoCo(config.depth, config.dim, config.queue_size, config.key_momentum, config.temperature).to(device).train()
    )
    parameters = model.encoder_q.parameters()
    optimizer = torch.optim.SGD(parameters, config.lr, momentum=config.sgd_momentum, weight_decay=config.weight_decay)
    scaler = torch.amp.GradScaler(device.type, enabled=config.amp == "float16")
    loader = DataLoader(
        crops,
        config.batch_size,
        shuffle=True,
        num_workers=config.num_workers,
        pin_memory=device.type == "cuda",
        drop_last=True,
    )
    for view_q, view_k in loader:
        view_q, view_k = view_q.to(device, non_blocking=True), view_k.to(device, non_blocking=True)
        with autocast(device, config.amp):
            logits = model(view_q, view_k)
            own = torch.zeros(len(logits), dtype=torch.long, device=device)
            loss = F.cross_entropy(logits, own)
        top5 = logits.topk(5).indices == 0  # (B, 5)
        _ = top5[:, 0].float().mean().item(), top5.any(1).float().mean().item()
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        yield loss.item()


class StoreCrops(Dataset):
    """Two views of every record of an LMDB, which is opened by the process that reads."""

    def __init__(self, path: Path, keys: list[bytes], transform: Callable[[Image.Image], Tensor]):
        self.path, self.keys, self.transform, self.environment = path, keys, transform, None

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if self.environment is None:
            self.environment = lmdb.open(str(self.path), readonly=True, lock=False, readahead=False, meminit=False)
        with self.environment.begin() as transaction:
            record = transaction.get(self.keys[index])
        image = Image.open(io.BytesIO(record)).convert("RGB")
        return self.transform(image), self.transform(image)


def view_transform(height: int, width: int) -> Callable[[Image.Image], Tensor]:
    """LUPerson's augmentation: picture -> (3, height, width), zero mean and unit deviation."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop((height, width), scale=(0.2, 1.0)),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply([gaussian_blur], p=0.5),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
            transforms.RandomErasing(p=0.5, scale=(0.02, 0.6)),
        ]
    )


def gaussian_blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


class MoCo(nn.Module):
    """MoCo v2 in one process: keys are encoded in a random order, which batch norm over the whole batch does not notice."""

    def __init__(self, depth: int, dim: int, queue_size: int, key_momentum: float, temperature: float):
        super().__init__()
        self.key_momentum, self.temperature = key_momentum, temperature
        self.encoder_q = getattr(torchvision.models, f"resnet{depth}")(num_classes=dim)
        size = self.encoder_q.fc.in_features
        self.encoder_q.fc = nn.Sequential(nn.Linear(size, size), nn.ReLU(), self.encoder_q.fc)
        self.encoder_k = copy.deepcopy(self.encoder_q).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(dim, queue_size), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    def forward(self, view_q: Tensor, view_k: Tensor) -> Tensor:
        """Normalised views (B, 3, H, W) -> (B, 1+K) logits, the own key first."""
        q = F.normalize(self.encoder_q(view_q), dim=1)
        with torch.no_grad():
            for of_q, of_k in zip(self.encoder_q.parameters(), self.encoder_k.parameters(), strict=True):
                of_k.data = of_k.data * self.key_momentum + of_q.data * (1 - self.key_momentum)
            order = torch.randperm(len(view_k), device=view_k.device)
            k = F.normalize(self.encoder_k(view_k[order]), dim=1)[order.argsort()]
        own = torch.einsum("bc,bc->b", q, k)[:, None]
        others = torch.einsum("bc,ck->bk", q, self.queue.clone().detach())
        self.enqueue(k)
        return torch.cat([own, others], dim=1) / self.temperature

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        start, length = int(self.queue_ptr), self.queue.shape[1]
        stop = min(start + len(keys), length)
        self.queue[:, start:stop] = keys.T[:, : stop - start]
        if start + len(keys) > length:  # around the end
            self.queue[:, : start + len(keys) - length] = keys.T[:, stop - start :]
        self.queue_ptr[0] = (start + len(keys)) % length


def finetuning(train: Split, config: FinetuneConfig, steps: int, device: torch.device) -> Iterator[dict[str, float]]:
    """So many steps of MGN on labelled crops from scratch; all terms of the loss after every step."""
    torch.backends.cudnn.benchmark = True
    crops = LabelledCrops(train, training_transform(config.height, config.width, config.padding))
    sampler = IdentitySampler(train.labels, config.ids_per_batch, config.images_per_id, config.seed)
    model = MGN(train.num_ids, config.depth, config.last_stride).to(device).train()
    groups = [{"params": [parameter]} for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(groups, config.lr, weight_decay=config.weight_decay)
    scaler = torch.amp.GradScaler(device.type, enabled=config.amp == "float16")
    batches = [batch.tolist() for batch in islice(sampler, steps)]
    loader = DataLoader(crops, batch_sampler=batches, num_workers=config.num_workers, pin_memory=device.type == "cuda")
    for images, labels in loader:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        with autocast(device, config.amp):
            features = model(images)
        terms = mgn_losses(model, features, labels)
        optimizer.zero_grad()
        scaler.scale(sum(terms.values())).backward()
        scaler.step(optimizer)
        scaler.update()
        yield {name: value.item() for name, value in terms.items()}


class LabelledCrops(Dataset):
    """The crops of a split, read from their files at every draw."""

    def __init__(self, split: Split, transform: Callable[[Image.Image], Tensor]):
        self.paths, self.labels, self.transform = split.path.tolist(), split.labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.open(self.paths[index]).convert("RGB")), self.labels[index]


def training_transform(height: int, width: int, padding: int) -> Callable[[Image.Image], Tensor]:
    """Fine-tuning's augmentation: picture -> (3, height, width) in 0..255."""
    return transforms.Compose(
        [
            transforms.Resize((height, width), transforms.InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(),
            transforms.Pad(padding),
            transforms.RandomCrop((height, width)),
            transforms.ToTensor(),
            times_255,
            transforms.RandomErasing(p=0.5, scale=(0.02, 0.4), ratio=(0.3, 1 / 0.3)),
        ]
    )


def times_255(image: Tensor) -> Tensor:
    return image * 255


class Head(nn.Module):
    """Generalised-mean pooling, 1 x 1 convolution, batch norm with a bias that stays 0, and a direction per identity."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.pool_layer = nn.ParameterDict({"p": torch.full((1,), 3.0)})
        self.bottleneck = nn.Sequential(nn.Conv2d(channels, 256, 1, bias=False), nn.BatchNorm2d(256))
        self.bottleneck[1].bias.requires_grad_(False)
        self.classifier = nn.Linear(256, num_classes, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        p = self.pool_layer["p"]
        pooled = F.adaptive_avg_pool2d(maps.clamp(min=1e-6).pow(p), 1).pow(1 / p)
        return self.bottleneck(pooled)[:, :, 0, 0]  # (B, 256)


class MGN(nn.Module):
    """One shared trunk, three branches that are copies of its end, eight heads; names of all tensors as published."""

    def __init__(self, num_classes: int, depth: int, last_stride: int):
        super().__init__()
        self.register_buffer("pixel_mean", torch.tensor(FINETUNE_MEAN).view(1, 3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(FINETUNE_STD).view(1, 3, 1, 1))
        resnet = getattr(torchvision.models, f"resnet{depth}")()
        channels = resnet.fc.in_features
        for module in resnet.layer4[0].modules():
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                module.stride = (last_stride, last_stride)
        stem = resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool
        self.backbone = nn.Sequential(*stem, resnet.layer1, resnet.layer2, resnet.layer3[0])
        branch = nn.Sequential(nn.Sequential(*resnet.layer3[1:]), resnet.layer4)
        self.b1, self.b2, self.b3 = copy.deepcopy(branch), copy.deepcopy(branch), copy.deepcopy(branch)
        self.heads_extra_bn_b1, self.heads_extra_bn_b2, self.heads_extra_bn_b3 = (
            nn.BatchNorm2d(channels) for _ in range(3)
        )
        for name in HEADS:
            self.add_module(f"{name}_head", Head(channels, num_classes))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) in 0..255 -> head name -> (B, 256)."""
        shared = self.backbone((images - self.pixel_mean) / self.pixel_std)
        b1 = self.heads_extra_bn_b1(self.b1(shared))
        b2 = self.heads_extra_bn_b2(self.b2(shared))
        b3 = self.heads_extra_bn_b3(self.b3(shared))
        b21, b22 = b2.tensor_split(2, dim=2)
        b31, b32, b33 = b3.tensor_split(3, dim=2)
        maps = {"b1": b1, "b2": b2, "b3": b3, "b21": b21, "b22": b22, "b31": b31, "b32": b32, "b33": b33}
        return {name: self.get_submodule(f"{name}_head")(maps[name]) for name in HEADS}


def mgn_losses(model: MGN, features: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
    """All terms, weighted: eight classifiers with circle logits and smoothed labels, five batch-hard triplets."""
    features = {name: feature.float() for name, feature in features.items()}
    terms = {}
    for name, feature in features.items():
        logits = circle_logits(feature, model.get_submodule(f"{name}_head").classifier.weight, labels)
        terms[f"loss_cls_{name}"] = 0.125 * smoothed_cross_entropy(logits, labels)
    b22 = torch.cat([features["b21"], features["b22"]], dim=1)
    b33 = torch.cat([features["b31"], features["b32"], features["b33"]], dim=1)
    joined = {"b1": features["b1"], "b2": features["b2"], "b3": features["b3"], "b22": b22, "b33": b33}
    return terms | {f"loss_triplet_{name}": 0.2 * hard_triplet(feature, labels) for name, feature in joined.items()}


def circle_logits(feature: Tensor, weight: Tensor, labels: Tensor, scale: float = 64, margin: float = 0.35) -> Tensor:
    cosine = F.linear(F.normalize(feature), F.normalize(weight))  # (B, P)
    alpha_p = (1 + margin - cosine.detach()).clamp(min=0)
    alpha_n = (cosine.detach() + margin).clamp(min=0)
    positive = scale * alpha_p * (cosine - (1 - margin))
    negative = scale * alpha_n * (cosine - margin)
    target = F.one_hot(labels, len(weight))
    return target * positive + (1 - target) * negative


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.1) -> Tensor:
    log_p = F.log_softmax(logits, dim=1)
    target = torch.full_like(log_p, smoothing / (logits.shape[1] - 1))
    target.scatter_(1, labels[:, None], 1 - smoothing)
    loss = -(target * log_p).sum(1)
    return loss.sum() / max(len(loss.nonzero()), 1)


def hard_triplet(feature: Tensor, labels: Tensor) -> Tensor:
    """Soft margin; all identities of a batch have as many images, so that what a mask selects is a table again."""
    count = len(labels)
    square = feature.pow(2).sum(1, keepdim=True)
    distance = (square + square.T - 2 * feature @ feature.T).clamp(min=1e-12).sqrt()
    same = labels[:, None] == labels[None, :]
    d_ap = distance[same].view(count, -1).max(1).values
    d_an = distance[~same].view(count, -1).min(1).values
    loss = F.soft_margin_loss(d_an - d_ap, torch.ones_like(d_an))
    if loss == float("inf"):
        loss = F.margin_ranking_loss(d_an, d_ap, torch.ones_like(d_an), margin=0.3)
    return loss
