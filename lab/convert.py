"""Weights from one layout into another: `lab convert`.

* to the lab's own, a safetensors file: the trunk inside any file that holds one, or a whole fine-tuned MGN;
* to a raw checkpoint of the published pre-training (lup_moco), which can go on from it;
* to what the published fine-tuning (fast-reid) reads: its own checkpoint from an MGN, and from anything else the flat
  trunk file that its MODEL.BACKBONE.PRETRAIN_PATH wants.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lab.backbone import Embedder, load_trunk
from lab.errors import InputError
from lab.finetune import mgn
from lab.pixels import LUPERSON_MEAN, LUPERSON_STD, alike
from lab.pretrain import moco
from lab.runs import replacing
from lab.weights import (
    STATISTICS,
    depth_of,
    describe_weights,
    is_mgn,
    read_weights,
    resolve_weights,
    trunk_depth,
    unwrap,
)

Layout = Literal["lab", "lup_moco", "fastreid"]


def convert(source: str | Path, out: Path, to: Layout = "lab", half: bool = False, bgr: bool = False) -> str:
    """Write the weights in `source` as the file `out`, in the layout `to`, and return what was found and kept.

    `half` stores 16-bit floats (the lab's layout only). `bgr` says that the weights were trained on BGR images (OpenCV):
    the first convolution is turned round, after which RGB images give the same features. Raises InputError.
    """
    file, out = resolve_weights(source), Path(out)
    suffixes = (".safetensors",) if to == "lab" else (".pth", ".pt")
    if out.suffix not in suffixes:
        raise InputError(f"--out is {out}; expected a name that ends in {' or '.join(suffixes)} for --to {to}")
    if half and to != "lab":
        raise InputError(f"--half was given with --to {to}, whose programs read 32-bit floats; leave it out")
    content = read_weights(file)
    if bgr:
        content = swap_channels(content, str(file))
    writers = {"lab": _to_lab, "lup_moco": _to_lup_moco, "fastreid": _to_fastreid}
    converted, sentence = writers[to](content, str(file))
    try:
        with replacing(out) as temporary:
            if to == "lab":
                _save_safetensors(converted, temporary, half)
            else:
                torch.save(converted, temporary)
    except OSError as error:
        raise InputError(f"cannot write {out} ({error.strerror}); give --out a writable place") from error
    return sentence


def swap_channels(content: dict, source: str) -> dict:
    """The same weights for images with the channels the other way round: BGR to RGB, or back.

    Turns the input channels of the first convolution(s) and the pixel statistics.
    """
    state = unwrap(content)
    first = {key for key, value in state.items() if value.ndim == 4 and value.shape[1:] == (3, 7, 7)}
    if not first:
        raise InputError(
            f"{source} holds {describe_weights(content)}, without a ResNet's first convolution to turn round"
        )
    turned = {key: value.flip(1) for key, value in state.items() if key in first or key in STATISTICS}
    rest = {key: value for key, value in content.items() if key in ("config", "epoch", "step")}
    return {"model": state | turned, **rest}


def _to_lab(content: dict, source: str) -> tuple[dict, str]:
    if not is_mgn(content):
        return _lab_trunk(content, source)
    model = mgn.from_official(unwrap(content), content.get("config", {}).get("last_stride", 1))
    state = model.state_dict()
    config = {"last_stride": model.last_stride, **_size(content)}
    return {"model": state, "config": config}, _about_mgn(source, state)


def _lab_trunk(content: dict, source: str) -> tuple[dict, str]:
    """The trunk with torchvision's names and the statistics it was trained with; LUPerson's where the file says none."""
    model = Embedder(trunk_depth(content, source))
    report = load_trunk(model, content, source)
    state = {key.removeprefix("trunk."): value for key, value in model.state_dict().items()}
    return {"model": state, "config": _size(content)}, str(report)


def _size(content: dict) -> dict:
    """The image size that weights were trained at, if their file says it."""
    return {key: content["config"][key] for key in ("height", "width") if key in content.get("config", {})}


def _to_lup_moco(content: dict, source: str) -> tuple[dict, str]:
    """`epoch, arch, state_dict, optimizer`, as lup_moco writes and resumes from."""
    model = moco.from_official(unwrap(content))
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
    known = {key: group[key] for key in published["param_groups"][0] if key in group and key != "params"}
    published["param_groups"][0].update(known)
    published["state"] = own["state"]
    return published, "with the optimizer's momentum"


def _to_fastreid(content: dict, source: str) -> tuple[dict, str]:
    if is_mgn(content):
        return _fastreid_checkpoint(content, source)
    converted, sentence = _lab_trunk(content, source)
    state = converted["model"]
    mean, std = ([round(value, 3) for value in state.pop(name).flatten().tolist()] for name in STATISTICS)
    return state, f"{sentence}\nset in its configuration: MODEL.PIXEL_MEAN {mean}, MODEL.PIXEL_STD {std}"


def _fastreid_checkpoint(content: dict, source: str) -> tuple[dict, str]:
    """`model` and `iteration`; without `optimizer` and `scheduler`, whose absence its loader accepts."""
    last_stride = content.get("config", {}).get("last_stride", 1)
    if last_stride != 1:
        raise InputError(
            f"{source} has last_stride {last_stride} and the published MGN always 1, so its features would differ there; "
            "train with --last-stride 1"
        )
    state = mgn.from_official(unwrap(content)).state_dict()
    iteration = content.get("iteration", content.get("step", 0) - 1)
    return {"model": dict(state), "iteration": int(iteration)}, _about_mgn(source, state)


def _about_mgn(source: str, state: Mapping[str, Tensor]) -> str:
    identities, extra = len(state["b1_head.classifier.weight"]), "heads_extra_bn_b1.weight" in state
    mean = ", ".join(f"{value:.3f}" for value in state["pixel_mean"].flatten().tolist())
    return (
        f"{source}: a fine-tuned MGN, all {len(state)} tensors, {identities} identities, {'with' if extra else 'without'} "
        f"extra batch norm, pixel mean {mean}"
    )


def _save_safetensors(converted: dict, file: Path, half: bool) -> None:
    from safetensors.torch import save_file

    def stored(key: str, value: Tensor) -> Tensor:
        small = half and value.is_floating_point() and key not in STATISTICS
        return (value.half() if small else value).contiguous()

    metadata = {"config": json.dumps(converted["config"])} if converted["config"] else None
    save_file({key: stored(key, value) for key, value in converted["model"].items()}, file, metadata=metadata)
