"""Which boxes of a video become crops, and how a crop is made from its box."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lab.errors import InputError


@dataclass(frozen=True)
class BuildConfig:
    """Settings of `lab data build`; the defaults are LUPerson's (paper, section 3), what it does not have is off."""

    min_score: float = 0.72  # a detection's score has to be above this; boxes without a score pass
    min_width: float = 48  # pixels; a box has to be wider than this
    min_aspect: float = 1.5  # height / width of a box, at least
    max_aspect: float = 5.0  # height / width of a box, at most
    min_sharpness: float = 0.0  # variance of the Laplacian of the grey crop (0..255), at least; 0 keeps blurred ones
    # a crop's perceptual hash has to differ from that of the last kept crop of this person in so many of its 64 bits; 0
    # keeps all. Where no box has an id, people are followed as with --track iou
    min_change: int = 0
    keypoints: str | None = None  # keep who shows head, upper body and part of the lower: 'download' or a weights file
    track: Literal["given", "iou"] = "given"  # tracklets: ids of the detection files; iou: overlap from frame to frame
    blur_heads: bool = False  # blur the upper sixth of every box, kept or not, before crops are cut
    quality: int = 95  # of the JPEG files, 1 to 100
    frame_height: int | None = None  # pixels of the frames that the boxes were found in; without it as the videos are
    # instead of detection files: one of torchvision's COCO detectors, such as fasterrcnn_resnet50_fpn_v2 or
    # ssdlite320_mobilenet_v3_large, or FILE.onnx
    detector: str | None = None
    detector_weights: Path | None = None  # file with the model's weights; without it torchvision downloads them
    detect_every: int = 1  # frames from one detection to the next
    device: str = "auto"  # of detector and key points: auto, cpu or cuda

    def __post_init__(self):
        for name, least, most in (
            ("min_score", 0, 1e6),
            ("min_width", 0, 10_000),
            ("min_aspect", 0, 100),
            ("max_aspect", self.min_aspect, 100),
            ("min_sharpness", 0, 1e6),
            ("min_change", 0, 64),
            ("quality", 1, 100),
            ("frame_height", 16, 20_000),
            ("detect_every", 1, 1_000_000),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise InputError(
                    f"{name} is {value}; expected {least} to {most}: give --{name.replace('_', '-')} such a value"
                )
