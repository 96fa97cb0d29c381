"""Fine-tuning: labelled crops in, an MGN that tells people apart out. The loop in `finetune` is the whole story."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from lab.backbone import LoadReport, load_trunk, pick_device
from lab.batch_norm import in_groups, statistics_kept
from lab.data.splits import Split, choose_subset
from lab.distributed import (
    as_first,
    average_gradients,
    check_parts,
    gather_with_gradient,
    is_first,
    parallel,
    rank,
    world_size,
)
from lab.errors import InputError
from lab.finetune.augment import Augmentation, TrainingImages, draws
from lab.finetune.losses import mgn_losses
from lab.finetune.mgn import HEAD_DIM, MGN, from_official
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
from lab.training.health import Health, Meter
from lab.training.loading import load_batches, to_device
from lab.training.precision import Precision
from lab.training.profile import section
from lab.training.session import HOW, Session, check_settings
from lab.weights import identify, read_weights, resolve_weights, unwrap

AfterEpoch = Callable[[MGN, int], dict[str, float]]
Encode = Callable[[Tensor], dict[str, Tensor]]
MEASURED = ("loss_cls", "loss_triplet", "accuracy")  # at every step; log.csv has their means since the row before
ADVICE = "raise --accumulate (with more --bn-groups), which goes through a batch in parts, or lower --ids-per-batch"


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
    accumulate: int = 1  # go through a process's share in so many parts: less memory, a third more time, same result
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
    amp: Literal["auto", "bfloat16", "float16", "off"] = "auto"  # mixed precision; auto: bfloat16 where hardware has it
    compile: bool = False  # torch.compile trunk and branches: the first step takes a minute, what it gains depends
    deterministic: bool = False  # on a GPU: equal runs to the last bit, at some cost; a CPU does that anyway
    num_workers: int = 0  # processes that read crops; 0 is best when they are cached
    cache_gb: float = 4.0  # resized crops are kept in memory if they need no more than this
    log_every: int = 10  # steps between rows of log.csv
    tensorboard: bool = False  # the same rows for TensorBoard, in the run folder's tensorboard/
    profile: bool = False  # trace steps 5 to 12 and print where their time goes
    checkpoint_minutes: float = 5.0  # between checkpoints; there is one at the end in any case
    keep: int = 1  # older checkpoints that are kept beside the latest one

    HOW: ClassVar[frozenset[str]] = HOW | {"cache_gb", "checkpoint_every"}

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

    Starts from the trunk in `init` (a checkpoint, a run folder, "shipped"; None is from scratch). A run that was stopped
    goes on after its last checkpoint, exactly as if it had not been. `after_epoch(model, epochs done)` may measure
    something; what it returns is shown. Started by torchrun, the processes share each batch. Raises InputError for fewer
    identities than a batch needs, an `init` without usable weights, a run that another process is training, and a loss
    that is not finite or explodes (the last good checkpoint stays); Stopped after SIGTERM, when everything is saved.
    """
    device = pick_device(config.device)
    check_settings(config, "height", "width", "repeat")
    if config.padding < 0 or config.padding > min(config.height, config.width):
        raise InputError(
            f"--padding is {config.padding}; expected 0 to {min(config.height, config.width)}, the smaller side of an image"
        )
    if config.steps_per_epoch is not None and config.steps_per_epoch < 1:
        raise InputError(f"--steps-per-epoch is {config.steps_per_epoch}; expected 1 or more, or none")
    train = choose_subset(train, config.fraction, config.fraction_of, config.subset, config.seed)
    sampler = IdentitySampler(train.labels, config.ids_per_batch, config.images_per_id, config.seed)
    _check_groups(sampler.batch_size, config)
    steps_per_epoch = config.steps_per_epoch or max(1, len(train) * config.repeat // sampler.batch_size)
    steps = config.epochs * steps_per_epoch
    frozen = frozen_steps(steps, config.freeze, init is not None)
    meter = Meter(run, MEASURED, sampler.batch_size)
    with Session(run, config, device, meter, Health(run), ADVICE) as session:
        model = _start(session, config, train.num_ids, init, progress).to(device, memory_format=torch.channels_last)
        optimizer = make_optimizer(model, config)
        precision = Precision(device, config.amp)
        first = session.restore(model, optimizer, precision, steps)
        if first == steps:
            return model.eval()
        images = _training_images(train, config)
        requests = draws(sampler, first, steps, rank(), world_size())
        batches = to_device(load_batches(images, requests, config.num_workers, device), device)
        encode = None
        with tqdm(total=steps, initial=first, unit="step", disable=not (progress and is_first())) as bar:
            for step, (crops, labels) in enumerate(session.each(batches), first):
                if encode is None or step == frozen:
                    set_frozen(model, step < frozen)
                    encode = parallel(model, model.features) if config.accumulate == 1 else model.features
                lr = learning_rate(step, steps, config)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                terms, accuracy = _step(model, encode, crops, labels, config, precision)
                with section("optimizer"):
                    precision.step(optimizer)

                done = step + 1
                epochs, position = divmod(done, steps_per_epoch)
                meter.add(*(_sum(terms, kind) for kind in MEASURED[:2]), accuracy)
                if position == 0 or done % config.log_every == 0:
                    row = _row(done, step // steps_per_epoch + 1, lr, meter.read(done))
                    session.write(row)
                    bar.set_postfix(loss=f"{row['loss']:.2f}", accuracy=f"{row['accuracy']:.2f}")
                if position == 0 and after_epoch:
                    with meter.pause():
                        measured = after_epoch(as_first(model), epochs)
                    if progress and is_first():
                        shown = ", ".join(f"{name} {value:.3f}" for name, value in measured.items())
                        bar.write(f"epoch {epochs}: {shown}")
                    encode = None  # a measurement leaves eval mode behind
                bar.update()
                # a finished run is saved without the optimizer: no step will use its moments, twice the size of the model
                kept = optimizer if done < steps else None
                state = partial(session.state, model, kept, precision, done, epochs, {"config": asdict(config)})
                session.end_step(done, state, last=done == steps)
    return as_first(model).eval()


def _step(
    model: MGN, encode: Encode, images: Tensor, labels: Tensor, config: FinetuneConfig, precision: Precision
) -> tuple[dict[str, Tensor], Tensor]:
    """One batch forward and backward: the terms of the loss and the accuracy, over the whole job's batch.

    Every process computes the loss of all images: hard mining looks for neighbours in the whole batch.
    """
    groups = config.bn_groups // world_size()
    if config.accumulate > 1:
        return _step_in_parts(model, images, labels, groups, config, precision)
    with section("forward"):
        with precision.autocast():
            features = grouped_features(model, images, groups, encode)
        terms, accuracy = _losses(model, features, labels, config)
    with section("backward"):
        precision.scale(sum(terms.values())).backward()
    return terms, accuracy


def _step_in_parts(
    model: MGN, images: Tensor, labels: Tensor, groups: int, config: FinetuneConfig, precision: Precision
) -> tuple[dict[str, Tensor], Tensor]:
    """`_step` with the memory of one part: features of all first, then each part again, with the gradient of its features.

    The triplets need everybody's features, but the way back from a feature to the weights needs that part's maps alone.
    Batch norm goes by groups, and a part is some whole groups, so nothing changes but the order of additions.
    """
    with section("forward"):
        with torch.no_grad(), statistics_kept(model), precision.autocast():
            features = grouped_features(model, images, groups)
        features = {head: feature.requires_grad_() for head, feature in features.items()}
        terms, accuracy = _losses(model, features, labels, config)
    with section("backward"):
        precision.scale(sum(terms.values())).backward()
        for part in range(config.accumulate):
            # running statistics follow the first part of all, as in `in_groups`
            with precision.autocast(), statistics_kept(model) if part else nullcontext():
                again = grouped_features(model, images[part :: config.accumulate], groups // config.accumulate)
            gradients = [features[head].grad[part :: config.accumulate] for head in again]
            torch.autograd.backward(list(again.values()), gradients)
        average_gradients(model.parameters())
    return terms, accuracy


def learning_rate(step: int, steps: int, config: FinetuneConfig) -> float:
    """Learning rate of `step` (from 0) of `steps`: a linear rise, then flat, then a cosine down to final_lr."""
    warmup, flat = round(config.warmup * steps), round(config.flat * steps)
    if step < warmup:
        return config.lr * (config.warmup_factor + (1 - config.warmup_factor) * step / warmup)
    if step <= flat:
        return config.lr
    cosine = math.cos(math.pi * (step - flat) / (steps - flat))
    return config.final_lr + (config.lr - config.final_lr) * (1 + cosine) / 2


def _losses(
    model: MGN, features: dict[str, Tensor], labels: Tensor, config: FinetuneConfig
) -> tuple[dict[str, Tensor], Tensor]:
    joined = whole_batch(torch.cat(list(features.values()), dim=1))
    features = dict(zip(features, joined.split(HEAD_DIM, dim=1), strict=True))
    return mgn_losses(features, model.class_weights(), whole_batch(labels), **loss_settings(config))


def grouped_features(model: MGN, images: Tensor, groups: int, encode: Encode | None = None) -> dict[str, Tensor]:
    """`model.features` with batch norm over `groups` parts: image i is in part i % groups, as it went to that GPU.

    `encode` is model.features as `lab.distributed.parallel` made it, if it did.
    """
    if groups == 1:
        return (encode or model.features)(images)
    parts = in_groups(model, encode or model.features, [images[group::groups] for group in range(groups)])
    return {head: torch.stack([part[head] for part in parts], dim=1).flatten(0, 1) for head in parts[0]}


def whole_batch(rows: Tensor) -> Tensor:
    """One row per image of this process -> one per image of the whole job's batch, in its order; gradients flow back.

    Image i went to process i % processes.
    """
    if world_size() == 1:
        return rows
    return gather_with_gradient(rows).unflatten(0, (world_size(), -1)).transpose(0, 1).flatten(0, 1)


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


def _check_groups(batch_size: int, config: FinetuneConfig) -> None:
    groups = config.bn_groups
    if groups < 1 or batch_size % groups or batch_size // groups < 2:
        raise InputError(
            f"a batch of {batch_size} cannot be split into {groups} equal batch-norm groups of at least 2 images; change "
            "--bn-groups"
        )
    check_parts(groups, config.accumulate)


def _start(session: Session, config: FinetuneConfig, num_classes: int, init: str | Path | None, progress: bool) -> MGN:
    """The model of the run's checkpoint if there is one, else a new one."""
    if session.found is not None:
        model = from_official(session.found["model"], config.last_stride)
    else:
        torch.manual_seed(config.seed)
        model, report = new_model(config, num_classes, init)
        if progress and is_first():
            print(report or "from random weights")
            print(shown_statistics(model))
    for part in model.trunk_parts() if config.compile else ():
        part.compile()
    return model


def _training_images(train: Split, config: FinetuneConfig) -> TrainingImages:
    augmentation = Augmentation(config.flip, config.padding, config.erase)
    return TrainingImages(train, config.height, config.width, augmentation, config.seed, config.cache_gb)


def _sum(terms: dict[str, Tensor], kind: str) -> Tensor:
    return sum(value for name, value in terms.items() if name.startswith(kind)).detach()


def _row(step: int, epoch: int, lr: float, means: dict[str, float]) -> dict:
    loss = means["loss_cls"] + means["loss_triplet"]
    return {"step": step, "epoch": epoch, "lr": lr, "loss": loss} | means
