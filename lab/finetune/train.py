"""Fine-tuning: labelled crops in, an MGN that tells people apart out. The loop in `finetune` is the whole story."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from lab.backbone import LoadReport, autocast, load_trunk, pick_device
from lab.batch_norm import in_groups
from lab.data.splits import Split, choose_subset
from lab.errors import InputError
from lab.files import replacing
from lab.finetune.augment import Augmentation, TrainingImages, draws
from lab.finetune.losses import mgn_losses
from lab.finetune.mgn import MGN, from_official
from lab.finetune.sampler import IdentitySampler
from lab.pixels import (
    FINETUNE_MEAN,
    FINETUNE_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    alike,
    register_pixel_statistics,
    shown_statistics,
)
from lab.runs import Run
from lab.weights import identify, read_weights, resolve_weights, unwrap

AfterEpoch = Callable[[MGN, int], dict[str, float]]


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of fine-tuning; the defaults are LUPerson's published recipe for MGN (R50, 384 x 128)."""

    depth: int = 50  # ResNet depth: 18, 34, 50, 101 or 152
    height: int = 384  # pixels
    width: int = 128  # pixels
    last_stride: int = 1  # stride of layer4 in the branches; 2 is four times less work in them
    extra_bn: Literal["auto", "on", "off"] = "auto"  # batch norm before the heads; auto: off for ImageNet with labels
    pixels: Literal["auto", "luperson", "imagenet"] = "auto"  # mean and std; auto: those of the initial weights
    fraction: float = 1.0  # share of the training set that is used (paper: 0.1, 0.3, ...)
    fraction_of: Literal["ids", "images"] = "ids"  # of the identities (paper: small-scale) or of the images (few-shot)
    subset: str | None = None  # published split file with the crops to use (used_ids_0.10.txt); instead of fraction
    epochs: int = 60  # passes; a pass is len(train) // batch size steps
    repeat: int = 1  # counts the training set this many times in a pass (published: 2 or 3 when images are very few)
    steps_per_epoch: int | None = None  # a pass has so many steps, for comparisons at equal cost; None: see epochs
    ids_per_batch: int = 4  # different people in a batch
    images_per_id: int = 16  # crops of each of them
    bn_groups: int = 4  # parts of a batch with batch-norm statistics of their own; published: 4 GPUs. 1 is faster
    lr: float = 3.5e-4  # Adam's learning rate, all parameters
    weight_decay: float = 5e-4  # L2, added to the gradient (coupled), all parameters
    warmup: float = 1 / 6  # share of the run with rising learning rate (published: 10 of 60 epochs)
    warmup_factor: float = 0.01  # learning rate at the first step, as a share of lr
    flat: float = 1 / 2  # share of the run after which the cosine starts (published: epoch 30 of 60)
    final_lr: float = 7.7e-7  # where the cosine ends
    freeze: float = 1 / 6  # share of the run in which only heads learn (published: 10 of 60); 0 from scratch
    scale: float = 64.0  # circle loss: s
    margin: float = 0.35  # circle loss: m
    smoothing: float = 0.1  # label smoothing, shared by the wrong identities
    adaptive: float = 0.0  # above 0, in place of smoothing: this times the probability of the right identity
    triplet_margin: float = 0.0  # 0 is the soft margin
    mining: Literal["hard", "weighted"] = "hard"  # triplets: the hardest of a batch, or all by softmax weights
    flip: float = 0.5  # probability
    padding: int = 10  # pixels of black on each side before the random crop
    erase: float = 0.5  # probability of an erased rectangle
    seed: int = 0  # of weights, identities, batches and augmentation
    device: str = "auto"  # auto, cpu, cuda
    amp: Literal["auto", "bfloat16", "off"] = "auto"  # mixed precision (published: off); auto: where hardware has it
    num_workers: int = 0  # processes that read crops; 0 is best when they are cached
    cache_gb: float = 4.0  # resized crops are kept in memory if they need no more than this
    log_every: int = 10  # steps between rows of log.csv
    checkpoint_every: int = 1  # epochs between checkpoints; the last epoch always has one

    @classmethod
    def tiny(cls) -> "FinetuneConfig":
        """Minutes on two CPU cores: a small trunk, small images, few passes; the schedule keeps its proportions.

        A batch holds more people and fewer crops of each than the published one: small sets have a dozen per person.
        """
        return cls(
            depth=18,
            height=128,
            width=64,
            last_stride=2,
            epochs=15,
            ids_per_batch=8,
            images_per_id=8,
            bn_groups=1,
            padding=5,
            lr=7e-4,
        )


def finetune(
    run: Run,
    train: Split,
    config: FinetuneConfig,
    init: str | Path | None = None,
    after_epoch: AfterEpoch | None = None,
    progress: bool = True,
) -> MGN:
    """Fine-tune an MGN on labelled crops (paper, section 5) and return it in eval mode.

    Starts from the trunk in `init` (a checkpoint, a run folder, "shipped"; None is from scratch), writes a checkpoint
    after every epoch, and goes on from the run's checkpoint if there is one. `after_epoch(model, epochs done)` may
    measure something; what it returns is shown. Raises InputError for fewer identities than a batch needs, for an
    `init` without usable weights, and when the loss is no longer finite; the last good checkpoint stays.
    """
    device = pick_device(config.device)
    train = choose_subset(train, config.fraction, config.fraction_of, config.subset, config.seed)
    sampler = IdentitySampler(train.labels, config.ids_per_batch, config.images_per_id, config.seed)
    _check_groups(sampler.batch_size, config.bn_groups)
    steps_per_epoch = config.steps_per_epoch or max(1, len(train) * config.repeat // sampler.batch_size)
    steps = config.epochs * steps_per_epoch
    frozen = frozen_steps(steps, config.freeze, init is not None)
    model, optimizer, step = _start(run, config, train.num_ids, init, device, progress)
    batches = iter(_loader(train, config, draws(sampler, config.seed, step, steps), device))
    meter = _Meter(run, sampler.batch_size)
    with tqdm(total=steps, initial=step, unit="step", desc="fine-tuning", disable=not progress) as bar:
        for epoch in range(step // steps_per_epoch, config.epochs):
            set_frozen(model, step < frozen)  # anew in every epoch: a measurement leaves eval mode behind
            for images, labels in islice(batches, steps_per_epoch):
                if step == frozen:
                    set_frozen(model, False)
                lr = learning_rate(step, steps, config)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                labels = labels.to(device, non_blocking=True)
                images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
                with autocast(device, config.amp):
                    features = grouped_features(model, images, config.bn_groups)
                terms, accuracy = mgn_losses(features, model.class_weights(), labels, **loss_settings(config))
                loss = sum(terms.values())
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()

                step += 1
                bar.update()
                meter.add(terms, accuracy)
                if step % config.log_every == 0 or step % steps_per_epoch == 0:
                    row = meter.log(step, epoch + 1, lr)
                    bar.set_postfix(loss=f"{row['loss']:.2f}", accuracy=f"{row['accuracy']:.2f}")
            if (epoch + 1) % config.checkpoint_every == 0 or epoch + 1 == config.epochs:
                save(run, model, optimizer if step < steps else None, step, epoch + 1, config)
            if after_epoch:
                measured = after_epoch(model, epoch + 1)
                bar.write(f"epoch {epoch + 1}: " + ", ".join(f"{name} {value:.3f}" for name, value in measured.items()))
    return model.eval()


def learning_rate(step: int, steps: int, config: FinetuneConfig) -> float:
    """Learning rate of `step` (from 0) of `steps`: a linear rise, then flat, then a cosine down to final_lr."""
    warmup, flat = round(config.warmup * steps), round(config.flat * steps)
    if step < warmup:
        return config.lr * (config.warmup_factor + (1 - config.warmup_factor) * step / warmup)
    if step <= flat:
        return config.lr
    cosine = math.cos(math.pi * (step - flat) / (steps - flat))
    return config.final_lr + (config.lr - config.final_lr) * (1 + cosine) / 2


def grouped_features(model: MGN, images: Tensor, groups: int) -> dict[str, Tensor]:
    """`model.features` with batch norm over `groups` parts: image i is in part i % groups, as it went to that GPU."""
    parts = in_groups(model, model.features, [images[group::groups] for group in range(groups)])
    return {head: torch.stack([part[head] for part in parts], dim=1).flatten(0, 1) for head in parts[0]}


def loss_settings(config: FinetuneConfig) -> dict:
    """The keywords of `mgn_losses` that a configuration sets."""
    names = ("scale", "margin", "smoothing", "triplet_margin", "mining", "adaptive")
    return {name: getattr(config, name) for name in names}


def frozen_steps(steps: int, freeze: float, has_initial_weights: bool) -> int:
    """How many steps leave trunk and branches as they are; the published loop does one more than a sixth of the run.

    Without initial weights there is nothing to protect from the untrained heads, and nothing is frozen.
    """
    return round(freeze * steps) + 1 if has_initial_weights and freeze > 0 else 0


def set_frozen(model: MGN, frozen: bool) -> None:
    """Training mode; when frozen, trunk and branches get no gradient and their batch norms keep their statistics."""
    model.train()
    for part in model.trunk_parts():
        part.requires_grad_(not frozen)
        part.train(not frozen)


def make_optimizer(model: MGN, config: FinetuneConfig) -> torch.optim.Adam:
    """Adam with the weight decay in the gradient, on everything but the heads' fixed biases.

    A frozen parameter has no gradient, and Adam passes over it: its moments start when it is set free.
    """
    frozen_for_good = {id(head.bottleneck[1].bias) for head in model.heads()}
    parameters = [parameter for parameter in model.parameters() if id(parameter) not in frozen_for_good]
    return torch.optim.Adam(parameters, config.lr, weight_decay=config.weight_decay, fused=True)


def save(
    run: Run, model: MGN, optimizer: torch.optim.Optimizer | None, step: int, epoch: int, config: FinetuneConfig
) -> None:
    """Write checkpoint.pt; until the new file is whole on disk, the old one stays.

    A finished run is saved without the optimizer (None): its moments are twice the size of the model, and no step
    will use them.
    """
    if not all(torch.isfinite(parameter).all() for parameter in model.parameters()):
        raise _not_finite(run, "a weight is no longer finite", step)
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer and optimizer.state_dict(),
        "scaler": None,  # bfloat16 needs none
        "step": step,
        "epoch": epoch,
        "rng": {"torch": torch.get_rng_state()},  # not needed to go on: batches and augmentation follow seed and step
        "config": asdict(config),
    }
    with replacing(run.checkpoint) as temporary:
        torch.save(content, temporary)


def load(path: str | Path) -> MGN:
    """The model in a fine-tuning run's checkpoint.pt, or in a released fine-tuned MGN file, ready to `embed`.

    Raises InputError for a file that holds no MGN.
    """
    file = resolve_weights(path)
    content = read_weights(file)
    return from_official(unwrap(content), identify(content).config.get("last_stride", 1), str(file)).eval()


def new_model(config: FinetuneConfig, num_classes: int, init: str | Path | None) -> tuple[MGN, LoadReport | None]:
    """An MGN from scratch, or on the trunk in `init` with what was loaded from it.

    Settings left at "auto" follow the kind of weights: a torchvision classifier of 1,000 classes is ImageNet with
    labels, which the paper fine-tunes without extra batch norm; everything else counts as pre-trained without labels.
    The pixel statistics are then those that come with the weights, or LUPerson's. Raises InputError if others are asked
    for than the weights were trained with.
    """
    content = read_weights(resolve_weights(init)) if init is not None else {}
    labelled = identify(content).labelled
    extra_bn = not labelled if config.extra_bn == "auto" else config.extra_bn == "on"
    model = MGN(num_classes, config.depth, extra_bn, last_stride=config.last_stride)
    report = load_trunk(model, content, str(init)) if init is not None else None
    if config.pixels != "auto":
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if config.pixels == "imagenet" else (FINETUNE_MEAN, FINETUNE_STD)
        if report and report.pixel_statistics and not alike(model.pixel_mean, model.pixel_std, mean, std):
            red, green, blue = model.pixel_mean.flatten().tolist()
            raise InputError(
                f"{init} was trained with pixel mean {red:.1f}, {green:.1f}, {blue:.1f} and --pixels {config.pixels} asks "
                f"for {mean[0]:.1f}, {mean[1]:.1f}, {mean[2]:.1f}; leave --pixels at auto"
            )
        register_pixel_statistics(model, mean, std)
    return model, report


def _check_groups(batch_size: int, groups: int) -> None:
    if groups < 1 or batch_size % groups or batch_size // groups < 2:
        raise InputError(
            f"a batch of {batch_size} cannot be split into {groups} equal batch-norm groups of at least 2 images; change "
            "--bn-groups"
        )


def _start(
    run: Run, config: FinetuneConfig, num_classes: int, init: str | Path | None, device: torch.device, progress: bool
) -> tuple[MGN, torch.optim.Adam, int]:
    """Model, optimizer and steps done: as the run's checkpoint says if there is one, else new."""
    if run.checkpoint.exists():
        content = read_weights(run.checkpoint)
        model = from_official(content["model"], config.last_stride).to(device, memory_format=torch.channels_last)
        optimizer = make_optimizer(model, config)
        if content["optimizer"] is not None:
            optimizer.load_state_dict(content["optimizer"])
        torch.set_rng_state(content["rng"]["torch"])
        run.trim_log(content["step"])
        return model, optimizer, content["step"]
    torch.manual_seed(config.seed)
    model, report = new_model(config, num_classes, init)
    if progress:
        print(report or "from random weights")
        print(shown_statistics(model))
    run.trim_log(-1)
    model = model.to(device, memory_format=torch.channels_last)
    return model, make_optimizer(model, config), 0


def _loader(train: Split, config: FinetuneConfig, requests: Iterator, device: torch.device) -> DataLoader:
    augmentation = Augmentation(config.flip, config.padding, config.erase)
    images = TrainingImages(train, config.height, config.width, augmentation, config.cache_gb)
    return DataLoader(images, batch_sampler=requests, num_workers=config.num_workers, pin_memory=device.type == "cuda")


class _Meter:
    """Means of the loss over the steps between two rows of log.csv; finds the step whose loss is not finite.

    It keeps tensors and looks at them only when a row is due, so that a GPU need not stop at every step.
    """

    def __init__(self, run: Run, batch_size: int):
        self.run, self.batch_size = run, batch_size
        self.values: list[Tensor] = []  # per step: classification, triplet, accuracy
        self.since = time.monotonic()

    def add(self, terms: dict[str, Tensor], accuracy: Tensor) -> None:
        cls = sum(value for name, value in terms.items() if name.startswith("loss_cls"))
        triplet = sum(value for name, value in terms.items() if name.startswith("loss_triplet"))
        self.values.append(torch.stack([cls, triplet, accuracy]).detach())

    def log(self, step: int, epoch: int, lr: float) -> dict:
        """Write the row that ends with `step` (steps done); raises InputError where the loss was not finite."""
        values = torch.stack(self.values).double().cpu()
        finite = values.isfinite().all(dim=1)
        if not finite.all():
            first = step - len(values) + 1 + int((~finite).int().argmax())
            raise _not_finite(self.run, f"the loss is {values[~finite][0, :2].sum().item()}", first)
        cls, triplet, accuracy = values.mean(dim=0).tolist()
        now = time.monotonic()
        row = {
            "step": step,
            "epoch": epoch,
            "lr": lr,
            "loss": cls + triplet,
            "loss_cls": cls,
            "loss_triplet": triplet,
            "accuracy": accuracy,
            "images_per_second": len(values) * self.batch_size / (now - self.since),
        }
        self.run.append_log(row)
        self.values, self.since = [], now
        return row


def _not_finite(run: Run, what: str, step: int) -> InputError:
    kept = f"the last good checkpoint is {run.checkpoint}" if run.checkpoint.exists() else "no epoch was finished yet"
    return InputError(f"{what} at step {step}, and training cannot go on; {kept}; use a smaller --lr")
