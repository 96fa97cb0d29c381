"""Find people in the frames of a video, and say of whom enough is seen: one small interface, any model behind it.

A detector is a function: an RGB frame (H, W, 3) uint8 -> boxes (N, 4) float64 x, y, width, height in its pixels and
scores (N,) float64 of the persons in it. What it finds is written as a MOTChallenge file, which the next stage reads
like any other.
"""

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision.models import detection, get_model_weights

from lab.data.video.filters import KeypointRule
from lab.data.video.frames import FrameReader
from lab.data.video.settings import BuildConfig
from lab.data.video.tracks import iou
from lab.errors import InputError
from lab.files import replacing

Detector = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

DETECTORS = {
    build.__name__: build
    for build in (
        detection.fasterrcnn_resnet50_fpn,
        detection.fasterrcnn_resnet50_fpn_v2,
        detection.fasterrcnn_mobilenet_v3_large_fpn,
        detection.retinanet_resnet50_fpn_v2,
        detection.fcos_resnet50_fpn,
        detection.ssdlite320_mobilenet_v3_large,
    )
}
WITHOUT_EPS = (  # their published weights were trained with an eps of 0 in batch norm: with another, all is off
    detection.fasterrcnn_resnet50_fpn,
    detection.keypointrcnn_resnet50_fpn,
)
PERSON = 1  # in COCO's labels, with 0 for the background
LEAST_SCORE = 0.1  # of a detection that is written down: below it nearly nothing is a person
MOST_FRAMES = 3_000_000  # of a video that does not declare them: more than a day
DONE = re.compile(rb"^# done (\d+)\n", re.MULTILINE)

HEAD = slice(0, 5)  # COCO's 17 key points: nose, eyes, ears
SHOULDERS = slice(5, 7)  # 7 to 10 are elbows and wrists, which the rule does not ask for
LOWER_BODY = slice(11, 17)  # hips, knees, ankles
VISIBLE = 2.0  # peak of a key point's heat map, before the softmax, from which on we take it as seen
SAME_PERSON = 0.5  # intersection over union of a box and a person that the key point model found


def load_detector(config: BuildConfig) -> Detector:
    """The detector that the settings name: a torchvision COCO model or FILE.onnx.

    InputError: an unknown name, weights that cannot be had or do not fit, an ONNX file with other inputs or outputs.
    """
    name = str(config.detector)
    if name.endswith(".onnx"):
        return _onnx_detector(Path(name), _device(config.device))
    if name not in DETECTORS:
        raise InputError(f"there is no detector '{name}'; choose FILE.onnx or one of {', '.join(DETECTORS)}")
    model = _load_model(DETECTORS[name], config.detector_weights, "--detector-weights FILE", _device(config.device))

    def detect(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = model(rgb)
        return _persons(*(found[key].numpy(force=True) for key in ("boxes", "labels", "scores")))

    return detect


def load_keypoints(config: BuildConfig) -> KeypointRule:
    """The key point rule with torchvision's model: frame (H, W, 3) and boxes (N, 4) -> whether enough is seen (N,).

    A box's key points are those of the model's person that overlaps it most; without one not enough is seen.
    InputError: weights that cannot be had or do not fit.
    """
    weights = None if config.keypoints == "download" else Path(str(config.keypoints))
    model = _load_model(detection.keypointrcnn_resnet50_fpn, weights, "--keypoints FILE", _device(config.device))

    def rule(rgb: np.ndarray, box: np.ndarray) -> np.ndarray:
        found = model(rgb)
        return visible_boxes(box, _sides(found["boxes"].numpy(force=True)), found["keypoints_scores"].numpy(force=True))

    return rule


def visible_boxes(box: np.ndarray, persons: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Which of the boxes (N, 4) show enough (N,), from the P persons (P, 4) and their key points' scores (P, 17)."""
    if not len(persons):
        return np.zeros(len(box), dtype=bool)
    overlap = iou(box, persons)
    enough = np.array([shows_enough(person) for person in scores])
    return enough[overlap.argmax(axis=1)] & (overlap.max(axis=1) >= SAME_PERSON)


def shows_enough(scores: np.ndarray) -> bool:
    """The paper's rule (section 3) on one person's key points (17,): head, upper body, and a part of the lower body.

    That is one of nose, eyes and ears, both shoulders, and one of hips, knees and ankles.
    """
    seen = scores >= VISIBLE
    return bool(seen[HEAD].any() and seen[SHOULDERS].all() and seen[LOWER_BODY].any())


def detect_video(
    file: Path,
    detector: Detector,
    every: int,
    out: Path,
    progress: Callable[[int], None] | None = None,
    title: str = "",
) -> None:
    """Write the people in frames 1, 1 + every, … as MOTChallenge lines; killed, the next call goes on where it was.

    Until `out` is whole, the lines are in `<out>.partial`, where each frame ends with a comment "# done FRAME", so
    that a frame without people is known, too. `title`, without a line's end, becomes the first line as a comment; of an
    `out` or partial file with another one, nothing is kept. A file is trusted to be of the same detector and `every`.
    `progress` is called with the number of each frame. InputError: a video that cannot be opened.
    """
    partial, head = out.with_name(out.name + ".partial"), f"# {title}\n".encode()
    if _starts_with(out, head):
        return
    if not _starts_with(partial, head):
        partial.write_bytes(head)
    done = _last_done(partial, len(head))
    end = 2 * FrameReader(file, np.empty(0)).declared or MOST_FRAMES  # twice: what a file declares is not always so
    wanted = np.arange(done + every if done else 1, end, every)
    with open(partial, "ab") as lines:
        for frame, rgb in FrameReader(file, wanted, threads=1):  # several may disagree before a damage
            for box, score in zip(*detector(rgb), strict=True):
                numbers = ",".join(f"{number:.3f}" for number in box)
                lines.write(f"{frame},-1,{numbers},{score:.6f},-1,-1,-1\n".encode())
            lines.write(b"# done %d\n" % frame)
            lines.flush()
            if progress is not None:
                progress(frame)
    with replacing(out) as temporary, open(partial, "rb") as lines, open(temporary, "wb") as whole:
        whole.write(head)
        whole.writelines(line for line in lines if not line.startswith(b"#"))
    partial.unlink()


def _starts_with(file: Path, head: bytes) -> bool:
    if not file.is_file():
        return False
    with open(file, "rb") as stream:
        return stream.read(len(head)) == head


def _last_done(partial: Path, end: int) -> int:
    """The last frame that is complete in this file, 0 without one; what was written after it, or `end`, is cut off."""
    frame = 0
    for match in DONE.finditer(partial.read_bytes()):
        frame, end = int(match[1]), match.end()
    os.truncate(partial, end)
    return frame


def _load_model(
    build: Callable[..., nn.Module], weights: Path | None, option: str, device: torch.device
) -> Callable[[np.ndarray], dict[str, Tensor]]:
    """A torchvision model with these weights, or with its own without any, as a function of an RGB frame."""
    if weights is None:
        try:
            model = build(weights="DEFAULT")
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise InputError(
                f"torchvision's weights of {build.__name__} cannot be downloaded ({_short(error)}); fetch "
                f"{get_model_weights(build).DEFAULT.url} where there is a network and give it with {option}"
            ) from error
    else:
        model = build(weights=None, weights_backbone=None)
        _fill(model, weights, build.__name__)
        if build in WITHOUT_EPS:
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eps = 0.0
    model.eval().to(device)

    @torch.inference_mode()
    def run(rgb: np.ndarray) -> dict[str, Tensor]:
        return model([torch.tensor(rgb, device=device).permute(2, 0, 1) / 255])[0]

    return run


def _fill(model: nn.Module, file: Path, name: str) -> None:
    """Load a state dict from a file of torch or safetensors; InputError if it cannot be read or does not fit."""
    try:
        if file.suffix == ".safetensors":
            state = safetensors.torch.load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    except (
        OSError,
        RuntimeError,
        TypeError,
        AttributeError,
        ValueError,
        EOFError,
        pickle.UnpicklingError,
        safetensors.SafetensorError,
    ) as error:
        raise InputError(
            f"{file} holds no weights for {name} ({_short(error)}); expected a state dict of exactly that torchvision model"
        ) from error


def _onnx_detector(file: Path, device: torch.device) -> Detector:
    """A detector in an ONNX file as torchvision exports it; frames are resized where its input has fixed sides."""
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            f"{file} is an ONNX file and the package onnxruntime is not installed; install it with "
            "`pip install 'luperson-lab[export]'`"
        ) from error
    wanted = ["CUDAExecutionProvider"] * (device.type == "cuda") + ["CPUExecutionProvider"]
    providers = [provider for provider in wanted if provider in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(file, providers=providers)
    except Exception as error:  # onnxruntime raises a dozen own types without a common one
        raise InputError(f"{file} cannot be read as an ONNX file ({_short(error)}); export it again") from error
    image, shape = _check_signature(file, session)

    def detect(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sides = [side if isinstance(side, int) else own for side, own in zip(shape[-2:], rgb.shape, strict=False)]
        resized = rgb if sides == [*rgb.shape[:2]] else cv2.resize(rgb, sides[::-1])
        pixels = (resized.transpose(2, 0, 1) / np.float32(255))[(None,) * (len(shape) - 3)]
        try:
            boxes, labels, scores = session.run(["boxes", "labels", "scores"], {image: pixels})
        except Exception as error:
            raise InputError(f"{file} fails on a frame of {rgb.shape} ({_short(error)}); export it again") from error
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes) == labels.size == scores.size:
            raise InputError(
                f"{file} gives boxes {boxes.shape}, labels {labels.shape} and scores {scores.shape} for a frame; expected "
                "(N, 4), (N,) and (N,) as torchvision's models have"
            )
        scale = rgb.shape[1] / sides[1], rgb.shape[0] / sides[0]
        return _persons(boxes * np.array(scale * 2), labels.ravel(), scores.ravel())

    return detect


def _check_signature(file: Path, session) -> tuple[str, list]:
    """Name and shape of an ONNX model's one input; InputError if it is no RGB image, or the outputs are others."""
    inputs, outputs = session.get_inputs(), [output.name for output in session.get_outputs()]
    shape = inputs[0].shape if len(inputs) == 1 and inputs[0].type == "tensor(float)" else []
    # a side that is free has a name instead of a number
    fits = (
        len(shape) in (3, 4)
        and shape[-3] in (3, str(shape[-3]))
        and (len(shape) == 3 or shape[0] in (1, str(shape[0])))
    )
    if not fits or not {"boxes", "labels", "scores"} <= set(outputs):
        found = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs)
        raise InputError(
            f"{file} takes {found} and gives {', '.join(outputs)}; expected one float image (3, H, W) or (1, 3, H, W) "
            "from 0 to 1 and outputs boxes, labels and scores, as torchvision's models have"
        )
    return inputs[0].name, shape


def _persons(boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The persons among corners (N, 4), labels (N,) and scores (N,), in the form of a Detector's answer."""
    sides = _sides(boxes)
    keep = (
        (labels == PERSON) & (scores >= LEAST_SCORE) & np.isfinite(sides).all(axis=1) & (sides[:, 2:] > 0).all(axis=1)
    )
    return sides[keep], scores[keep].astype(np.float64)


def _sides(corners: np.ndarray) -> np.ndarray:
    """x0, y0, x1, y1 as x, y, width, height, (N, 4) float64."""
    corners = corners.astype(np.float64).reshape(-1, 4)
    return np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])


def _device(name: str) -> torch.device:
    """ "auto" is the first CUDA GPU if there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise InputError(
            f"device '{name}' is not to be had on this machine; choose auto, cpu or cuda where there is a GPU"
        )
    return torch.device(name)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
