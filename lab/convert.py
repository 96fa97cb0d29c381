"""Weights from one layout into another: `lab convert`.

* to the lab's own, a safetensors file: the trunk inside any file that holds one, or a whole fine-tuned MGN;
* to a raw checkpoint of the published pre-training (lup_moco), which can go on from it;
* to what the published fine-tuning (fast-reid) reads: its own checkpoint from an MGN, and from anything else the flat
  trunk file that its MODEL.BACKBONE.PRETRAIN_PATH wants.

A conversion writes what the file says and nothing else: no default statistics, no tensor that was not there.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lab.backbone import LoadReport, load_trunk, resnet, statistics_of
from lab.errors import InputError
from lab.files import replacing
from lab.finetune import mgn
from lab.pixels import FINETUNE_MEAN, FINETUNE_STD, LUPERSON_MEAN, LUPERSON_STD, alike
from lab.pretrain import moco
from lab.weights import STATISTICS, Weights, depth_of, identify, read_weights, resolve_weights

Layout = Literal["lab", "lup_moco", "fastreid"]


def convert(source: str | Path, out: Path | None, to: Layout = "lab", half: bool = False, bgr: bool = False) -> str:
    """Write the weights in `source` as the file `out`, in the layout `to`, and return what was found and kept.

    Without `out` nothing is written. `half` stores 16-bit floats (the lab's layout only). `bgr` says that the weights
    were trained on BGR images (OpenCV): the first convolution is turned round, after which RGB images give the same
    features. Raises InputError, also for a file that lacks a part of what it should hold.
    """
    file = resolve_weights(source)
    _check_request(None if out is None else Path(out), to, half)
    content = read_weights(file)
    given = identify(content)
    if bgr:
        given = swap_channels(given, str(file))
        content = content | {"optimizer": None}  # whose momentum belongs to the first convolution as it was
    writers = {"lab": _to_lab, "lup_moco": _to_lup_moco, "fastreid": _to_fastreid}
    converted, sentence = writers[to](given, content, str(file))
    if out is not None:
        _write(converted, Path(out), to, half)
    return sentence


def swap_channels(given: Weights, source: str) -> Weights:
    """The same weights for images with the channels the other way round: BGR to RGB.

    Turns the input channels of the first convolution(s) and the pixel statistics. Raises InputError for statistics that
    are in the order of RGB already, and where there is no first convolution.
    """
    first = {key for key, value in given.state.items() if value.ndim == 4 and value.shape[1:] == (3, 7, 7)}
    if not first:
        raise InputError(f"{source} holds {given.words}, without a ResNet's first convolution to turn round")
    try:
        known = statistics_of(given, source)
    except InputError:
        known = {}  # in the order of BGR, as it should be
    if known:
        raise InputError(
            f"--bgr was given and {source} has pixel statistics in the order R, G, B; leave --bgr out, or turn the "
            "statistics round first if they are wrong"
        )
    turned = {key: value.flip(1) for key, value in given.state.items() if key in first}
    turned |= {name: given.state[name].reshape(1, 3, 1, 1).flip(1) for name in STATISTICS if name in given.state}
    return replace(identify(given.state | turned), labelled=given.labelled, config=given.config)


def _check_request(out: Path | None, to: Layout, half: bool) -> None:
    suffixes = (".safetensors",) if to == "lab" else (".pth", ".pt")
    if out is not None and out.suffix not in suffixes:
        raise InputError(f"--out is {out}; expected a name that ends in {' or '.join(suffixes)} for --to {to}")
    if half and to != "lab":
        raise InputError(f"--half was given with --to {to}, whose programs read 32-bit floats; leave it out")


def _to_lab(given: Weights, content: dict, source: str) -> tuple[dict, str]:
    config = {key: given.config[key] for key in ("height", "width", "last_stride") if key in given.config}
    if given.kind == "mgn":
        model = mgn.from_official(given.state, config.get("last_stride", 1), source)
        return {"model": model.state_dict(), "config": config}, _about_mgn(source, model)
    state, report = _trunk(given, source)
    config |= {"labelled": True} if given.labelled else {}
    return {"model": state | statistics_of(given, source), "config": config}, f"{report}\n{_about(given, source)}"


def _trunk(given: Weights, source: str) -> tuple[dict[str, Tensor], LoadReport]:
    """The trunk's tensors with torchvision's names, all of them. Raises InputError if one is missing or misshapen."""
    trunk = resnet(given.depth or 50)
    report = load_trunk(trunk, given.state, source)
    if report.fraction < 1:
        raise InputError(f"{source} holds no whole trunk ({report}); convert a complete file")
    return trunk.state_dict(), report


def _about(given: Weights, source: str) -> str:
    """A line on what is known about the images that a trunk was trained on."""
    known = statistics_of(given, source)
    if not known:
        return "it carries no pixel statistics, as the released files; those of LUPerson are used with it"
    return "pixel mean {}, std {}".format(*(_rounded(known[name]) for name in STATISTICS))


def _to_lup_moco(given: Weights, content: dict, source: str) -> tuple[dict, str]:
    """`epoch, arch, state_dict, optimizer`, as lup_moco writes and resumes from."""
    model = moco.from_official(given.state, source)
    if not alike(model.pixel_mean, model.pixel_std, LUPERSON_MEAN, LUPERSON_STD):
        raise InputError(
            f"{source} was trained with other pixel statistics than LUPerson's, which lup_moco always uses; "
            "use --to fastreid, where they can be set"
        )
    state, depth = model.state_dict(), depth_of(model.state_dict(), "encoder_q.")
    order = ("queue", "queue_ptr", "encoder_q.", "encoder_k.")  # as published
    published = {f"module.{key}": state[key] for start in order for key in state if _belongs(key, start)}
    optimizer, momentum = _published_optimizer(model, content.get("optimizer"))
    checkpoint = {
        "epoch": int(content.get("epoch", 0)),
        "arch": f"resnet{depth}",
        "state_dict": published,
        "optimizer": optimizer,
    }
    return checkpoint, f"{source}: MoCo on ResNet-{depth}, {len(published)} tensors, {momentum}"


def _belongs(key: str, start: str) -> bool:
    return key.startswith(start) if start.endswith(".") else key == start


def _published_optimizer(model: moco.MoCo, own: dict | None) -> tuple[dict, str]:
    """SGD's state over the parameters of both encoders, as lup_moco keeps it; encoder_k's have none."""
    parameters = [*model.encoder_q.parameters(), *model.encoder_k.parameters()]
    published = torch.optim.SGD(parameters, lr=0.3, momentum=0.9, weight_decay=1e-4).state_dict()
    group = own["param_groups"][0] if own else {}
    if "momentum" not in group:  # no optimizer, or another one
        return published, "without the optimizer's state"
    own_ways = ("params", "fused", "foreach")  # which parameters, and how a step is computed
    known = {key: group[key] for key in published["param_groups"][0] if key in group and key not in own_ways}
    published["param_groups"][0].update(known)
    published["state"] = own["state"]
    return published, "with the optimizer's momentum"


def _to_fastreid(given: Weights, content: dict, source: str) -> tuple[dict, str]:
    if given.kind == "mgn":
        return _fastreid_checkpoint(given, content, source)
    state, report = _trunk(given, source)
    known = statistics_of(given, source)
    mean, std = (_rounded(known[name]) for name in STATISTICS) if known else map(list, (FINETUNE_MEAN, FINETUNE_STD))
    whose = "of these weights" if known else "of LUPerson's published configuration, as the file says none"
    return state, f"{report}\nset in its configuration: MODEL.PIXEL_MEAN {mean}, MODEL.PIXEL_STD {std} ({whose})"


def _fastreid_checkpoint(given: Weights, content: dict, source: str) -> tuple[dict, str]:
    """`model` and `iteration`; without `optimizer` and `scheduler`, whose absence its loader accepts."""
    last_stride = given.config.get("last_stride", 1)
    if last_stride != 1:
        raise InputError(
            f"{source} has last_stride {last_stride} and the published MGN always 1, so its features would differ there; "
            "train with --last-stride 1"
        )
    model = mgn.from_official(given.state, source=source)
    iteration = content.get("iteration", content.get("step", 0) - 1)
    return {"model": dict(model.state_dict()), "iteration": int(iteration)}, _about_mgn(source, model)


def _about_mgn(source: str, model: mgn.MGN) -> str:
    state = model.state_dict()
    identities, extra = len(state["b1_head.classifier.weight"]), "with" if model.extra_bn else "without"
    return (
        f"{source}: a fine-tuned MGN, all {len(state)} tensors, {identities} identities, {extra} extra batch norm, "
        f"pixel mean {_rounded(model.pixel_mean)}, std {_rounded(model.pixel_std)}"
    )


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 3) for value in values.flatten().tolist()]


def _write(converted: Mapping, out: Path, to: Layout, half: bool) -> None:
    try:
        with replacing(out) as temporary:
            if to == "lab":
                _save_safetensors(converted, temporary, half)
            else:
                torch.save(converted, temporary)
    except OSError as error:
        raise InputError(f"cannot write {out} ({error.strerror}); give --out a writable place") from error


def _save_safetensors(converted: Mapping, file: Path, half: bool) -> None:
    from safetensors.torch import save_file

    def stored(key: str, value: Tensor) -> Tensor:
        small = half and value.is_floating_point() and key not in STATISTICS
        return (value.half() if small else value).contiguous()

    metadata = {"config": json.dumps(converted["config"])} if converted["config"] else None
    save_file({key: stored(key, value) for key, value in converted["model"].items()}, file, metadata=metadata)
