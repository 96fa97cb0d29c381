"""A model's descriptor as one ONNX file for programs without torch: uint8 pictures in, unit-norm features out.

    images   uint8 (batch, 3, H, W), RGB, 0..255; H and W are fixed, batch is free
    features float32 (batch, D), unit norm: the distance of two people is 1 - the dot product

Normalisation is inside, once: whoever subtracts a mean before does it twice, and then all cosines come out near 1.
Resizing is not inside: bring each picture to H x W with Pillow's bicubic filter first, as `lab.data.crops.resize` does.
Legend: B images in a batch, D feature size.
"""

import copy
import importlib
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm import tqdm

from lab import __version__
from lab.backbone import Embedder, load_trunk
from lab.errors import InputError
from lab.files import replacing
from lab.weights import depth_of

OPSET = 18  # the exporters of torch 2.5 and later write it, onnxruntime 1.18 and later read it
MAX_DIFFERENCE = 1e-4  # of a feature's numbers between onnxruntime and torch; float32 gives about 1e-7
BATCHES = (1, 3)  # images that are compared at once: neither is the 2 that the model is traced with


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how far onnxruntime and torch are apart on random images."""

    file: Path
    height: int  # pixels of an image
    width: int
    feature_size: int
    megabytes: float
    difference: float  # the largest between two numbers of unit-norm features
    cosine: float  # the smallest between the two features of an image

    def __str__(self) -> str:
        batches = " and ".join(map(str, BATCHES))
        return (
            f"{self.file}: uint8 images (batch, 3, {self.height}, {self.width}) -> {self.feature_size} numbers, "
            f"{self.megabytes:.1f} MB; onnxruntime and torch on batches of {batches} random images: maximum absolute "
            f"difference {self.difference:.1e}, smallest cosine {self.cosine:.7f}"
        )


def export_onnx(
    model: nn.Module,
    out: str | Path,
    height: int,
    width: int,
    facts: dict[str, str] | None = None,
    progress: bool = False,
) -> ExportReport:
    """Write the descriptor of an MGN, a MoCo or an Embedder as an ONNX file and compare it with `model.embed`.

    `height` and `width` in pixels are fixed in the file, `facts` are more entries for its metadata (where the weights
    came from). The file appears only when onnxruntime, on the CPU, gives the features of torch to MAX_DIFFERENCE.
    Raises InputError for a size that the model cannot take, a place that cannot be written, a file that failed the
    comparison, and where the packages of the extra `export` are not installed.
    """
    out = Path(out)
    _check_request(out, height, width)
    model = copy.deepcopy(model).cpu()
    images = _random_images(height, width)
    # before tracing, which would bury the model's own sentence about a size that it cannot take
    expected = [model.embed(batch).numpy() for batch in images]
    entries = _metadata(model, height, width, expected[0].shape[1]) | (facts or {})
    try:
        with replacing(out) as temporary, tqdm(total=3, unit="step", desc="exporting", disable=not progress) as bar:
            graph = _trace(_without_batch_norm(_with_descriptor_as_forward(model)), height, width)
            bar.update()
            temporary.write_bytes(_cleaned(graph, entries).SerializeToString())
            bar.update()
            difference, cosine = _compare(temporary, images, expected)
            bar.update()
            megabytes = temporary.stat().st_size / 1e6
    except OSError as error:
        raise InputError(f"cannot write {out} ({error.strerror}); give --out a writable place") from error
    return ExportReport(out, height, width, expected[0].shape[1], megabytes, difference, cosine)


def run_onnx(file: str | Path, images: np.ndarray) -> np.ndarray:
    """What another program does with the file: (B, 3, H, W) uint8 -> features (B, D), by onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(["features"], {"images": images})[0]


def _check_request(out: Path, height: int, width: int) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise InputError(
                f"the package {package} is missing ({error}) and ONNX files need it; install it with "
                "pip install 'luperson-lab[export]', or pip install -e '.[export]' in a checkout"
            ) from error
    if out.suffix != ".onnx" or out.is_dir():
        raise InputError(f"the file to write is {out}; expected a name that ends in .onnx: give --out FILE.onnx")
    if min(height, width) < 1:
        raise InputError(f"the image size is {height} x {width}; give --height and --width in pixels, 1 or more")


def _random_images(height: int, width: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator) for count in BATCHES
    ]


def _with_descriptor_as_forward(model: nn.Module) -> nn.Module:
    """The model itself, or for MoCo, whose `forward` is a training step, its query encoder's trunk alone."""
    if not hasattr(model, "encoder_q"):
        return model.eval()
    state = model.state_dict()
    with torch.random.fork_rng(devices=[]):
        embedder = Embedder(depth_of(state, "encoder_q."))
    load_trunk(embedder, state)
    return embedder.eval()


class _Affine(nn.Module):
    """A batch norm with the statistics of training, written as what it is: a factor and a summand for each channel."""

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__()
        factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        self.register_buffer("factor", factor.detach().view(1, -1, 1, 1))
        self.register_buffer("summand", (norm.bias - norm.running_mean * factor).detach().view(1, -1, 1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        return maps * self.factor + self.summand


def _without_batch_norm(model: nn.Module) -> nn.Module:
    """Put each batch norm into the convolution that is defined just before it, or write it as a factor and a summand.

    The exporters of torch 2.5 and 2.6 stumble over batch norm with a current onnxscript, and runtimes fold it anyway.
    """
    for parent in list(model.modules()):
        children = list(parent.named_children())
        for (name, conv), (norm_name, norm) in pairwise([("", None), *children]):
            if not isinstance(norm, nn.BatchNorm2d):
                continue
            if isinstance(conv, nn.Conv2d):
                setattr(parent, name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, nn.Identity())
            else:
                setattr(parent, norm_name, _Affine(norm))
    return model


@torch.no_grad()
def _trace(model: nn.Module, height: int, width: int):
    """The ONNX model (ModelProto) of `model.forward`. Gradients are off, so that small maps stay plain convolutions."""
    try:
        program = torch.onnx.export(
            model,
            (torch.zeros(2, 3, height, width, dtype=torch.uint8),),
            input_names=["images"],
            output_names=["features"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise InputError(
            f"the ONNX exporter of torch {torch.__version__} cannot translate this model with the installed onnxscript; "
            "install newer versions: pip install --upgrade torch torchvision onnx onnxscript"
        ) from error
    return program.model_proto


def _cleaned(proto, entries: dict[str, str]):
    """The model with `entries` as its only metadata: the exporter's own hold stack traces with this machine's paths.

    Weights that no node uses, such as an MGN's classifiers, are left out; older exporters keep them.
    """
    graph = proto.graph
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    proto.ClearField("metadata_props")
    for key, value in entries.items():
        proto.metadata_props.add(key=key, value=value)
    return proto


def _metadata(model: nn.Module, height: int, width: int, feature_size: int) -> dict[str, str]:
    return {
        "what": "person descriptor for re-identification, exported by LUPerson Lab",
        "model": type(model).__name__,
        "input": f"images: uint8 (batch, 3, {height}, {width}), RGB, 0..255, normalised inside",
        "resize": f"not inside: bring each picture to {height} x {width} pixels with Pillow's bicubic filter before",
        "output": f"features: float32 (batch, {feature_size}), unit norm; distance is 1 - dot product",
        "height": str(height),
        "width": str(width),
        "feature_size": str(feature_size),
        "pixel_mean": json.dumps([round(value, 4) for value in model.pixel_mean.flatten().tolist()]),
        "pixel_std": json.dumps([round(value, 4) for value in model.pixel_std.flatten().tolist()]),
        "lab_version": __version__,
        "torch_version": torch.__version__,
    }


def _compare(file: Path, images: list[Tensor], expected: list[np.ndarray]) -> tuple[float, float]:
    """Largest difference and smallest cosine between the file in onnxruntime and torch. Raises InputError."""
    theirs = np.concatenate([run_onnx(file, batch.numpy()) for batch in images]).astype(np.float64)
    ours = np.concatenate(expected).astype(np.float64)
    difference = float(np.abs(theirs - ours).max())
    cosine = float(((theirs * ours).sum(1) / np.linalg.norm(theirs, axis=1) / np.linalg.norm(ours, axis=1)).min())
    if not difference <= MAX_DIFFERENCE:  # a NaN is no agreement either
        raise InputError(
            f"onnxruntime's features differ from torch's by {difference:.1e} (smallest cosine {cosine:.6f}) and at most "
            f"{MAX_DIFFERENCE:.0e} was expected, so nothing was written; try other versions of torch and onnxruntime, "
            "and check that the weights are finite"
        )
    return difference, cosine
