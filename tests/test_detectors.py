"""Detectors: torchvision's models called directly, ONNX graphs made by hand, and a detection killed at any byte."""

from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import detection
from torchvision.ops import MultiScaleRoIAlign

from lab.data.video.detectors import (
    DETECTORS,
    WITHOUT_EPS,
    detect_video,
    load_detector,
    load_keypoints,
    shows_enough,
    visible_boxes,
)
from lab.data.video.settings import BuildConfig
from lab.errors import InputError

SSDLITE = "ssdlite320_mobilenet_v3_large"


def noise(shape: tuple = (60, 80, 3), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


class Small(torch.nn.Module):
    """Answers like torchvision's detectors: a person and something else, with the frame's mean as both scores."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3, affine=False)

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        score = self.norm(images[0][None]).mean()
        boxes = torch.tensor([[10.0, 20, 30, 60], [0, 0, 5, 5]])
        return [{"boxes": boxes, "labels": torch.tensor([1, 2]), "scores": score.repeat(2)}]


def build_small(weights=None, weights_backbone=None) -> Small:
    return Small()


@pytest.fixture
def small(monkeypatch, tmp_path) -> BuildConfig:
    """The settings of a detector that is made in no time, and a file with its weights."""
    monkeypatch.setitem(DETECTORS, "small", build_small)
    torch.save(Small().state_dict(), tmp_path / "weights.pth")
    return BuildConfig(detector="small", detector_weights=tmp_path / "weights.pth", device="cpu")


def test_a_torchvision_detector_finds_what_the_model_finds(tmp_path):
    """Random weights: batch norm sees noise once, so that scores vary, and some boxes are persons and some are not."""
    torch.manual_seed(0)
    model = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).train()
    with torch.no_grad():
        for layer in model.head.classification_head.module_list:
            layer[1].bias.view(-1, 91)[:, 1:3] = 4
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        model.head(list(model.backbone(torch.rand(2, 3, 160, 160)).values()))
    model.eval()
    with torch.inference_mode():
        (found,) = model([torch.from_numpy(noise()).permute(2, 0, 1).float().div(255)])
    rows = zip(*(found[key].tolist() for key in ("boxes", "labels", "scores")), strict=True)
    persons = [(x0, y0, x1 - x0, y1 - y0, s) for (x0, y0, x1, y1), label, s in rows if label == 1 and s >= 0.1]
    assert 10 < len(persons) < len(found["labels"])

    torch.save(model.state_dict(), tmp_path / "weights.pth")
    config = BuildConfig(detector=SSDLITE, detector_weights=tmp_path / "weights.pth", device="cpu")
    boxes, scores = load_detector(config)(noise())
    assert boxes.dtype == scores.dtype == np.float64
    np.testing.assert_allclose(np.column_stack([boxes, scores]), persons, atol=1e-3)


def test_the_frame_goes_in_as_0_to_1_and_only_persons_come_out(small):
    boxes, scores = load_detector(small)(np.full((60, 80, 3), 51, np.uint8))
    assert boxes.tolist() == [[10, 20, 20, 40]]
    np.testing.assert_allclose(scores, [0.2], rtol=1e-4)  # batch norm's eps makes it a little less
    assert len(load_detector(small)(np.full((60, 80, 3), 25, np.uint8))[0]) == 0  # 25 / 255 is below 0.1


def test_published_weights_from_a_file_get_the_batch_norm_they_were_trained_with(small, monkeypatch):
    """Faster R-CNN's want no eps; torchvision takes it away only from what it downloads, and the file does not say so."""
    assert detection.fasterrcnn_resnet50_fpn in WITHOUT_EPS
    torch.save({**Small().state_dict(), "norm.running_var": torch.full((3,), 1e-5)}, small.detector_weights)
    black = np.zeros((60, 80, 3), np.uint8)
    for pretend, expected in ((True, 1e-5**-0.5), (False, 2e-5**-0.5)):
        monkeypatch.setattr("lab.data.video.detectors.WITHOUT_EPS", (build_small,) * pretend)
        np.testing.assert_allclose(load_detector(small)(black + 255)[1], [expected], rtol=1e-4)


def test_weights_may_be_safetensors(small, tmp_path):
    save_file({**Small().state_dict(), "norm.running_var": torch.full((3,), 4.0)}, tmp_path / "weights.safetensors")
    config = replace(small, detector_weights=tmp_path / "weights.safetensors")
    np.testing.assert_allclose(load_detector(config)(np.full((60, 80, 3), 255, np.uint8))[1], [0.5], rtol=1e-4)


def test_without_a_network_it_says_which_file_to_give(monkeypatch):
    def offline(self, *args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", offline)
    with pytest.raises(InputError, match=r"no route to host.*ssdlite320.*\.pth .*--detector-weights FILE"):
        load_detector(BuildConfig(detector=SSDLITE))


@pytest.mark.parametrize(
    "content", ["nothing", "text", "a list", "another model", "wrong shapes", "half", "safetensors"]
)
def test_weights_that_do_not_fit_are_refused(tmp_path, small, content):
    file = tmp_path / ("bad.safetensors" if content == "safetensors" else "bad.pth")
    if content in ("text", "safetensors"):
        file.write_text("no weights\n")
    elif content == "half":
        whole = small.detector_weights.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
    elif content != "nothing":
        wrong = {**Small().state_dict(), "norm.running_var": torch.ones(4)}
        torch.save({"a list": [1, 2], "another model": {"fc": torch.ones(2)}, "wrong shapes": wrong}[content], file)
    with pytest.raises(InputError, match=r"bad\.\w+ holds no weights for build_small"):
        load_detector(replace(small, detector_weights=file))


def test_unknown_detectors_and_devices_are_refused(small):
    with pytest.raises(InputError, match=r"no detector 'yolo'.*fasterrcnn_resnet50_fpn"):
        load_detector(BuildConfig(detector="yolo"))
    with pytest.raises(InputError, match="device 'tpu'"):
        load_detector(replace(small, device="tpu"))


BOXES = [[10, 20, 30, 60], [0, 0, 5, 5], [1, 2, 4, 8], [7, 7, 7, 9]]  # corners


def onnx_file(
    file: Path, shape: list, outputs: tuple = ("boxes", "labels", "scores"), boxes=BOXES, kind: int = 1
) -> Path:
    """A model that finds the same four boxes everywhere, persons but the second; a score is a channel's maximum / 2."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    constants = {
        "b": np.array(boxes, np.float32),
        "l": np.array([1, 2, 1, 1], np.int64),
        "axes": np.array([len(shape) - 2, len(shape) - 1], np.int64),
        "first": np.array([0, 1, 2, 0], np.int64),
        "flat": np.array([3], np.int64),
        "half": np.array(0.5, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=1),
        helper.make_node("ReduceMax", ["float", "axes"], ["most"], keepdims=0),
        helper.make_node("Reshape", ["most", "flat"], ["channels"]),
        helper.make_node("Gather", ["channels", "first"], ["four"]),
        helper.make_node("Mul", ["four", "half"], [outputs[2]]),
        helper.make_node("Identity", ["b"], [outputs[0]]),
        helper.make_node("Identity", ["l"], [outputs[1]]),
    ]
    kinds = dict(zip(outputs, (1, 7, 1), strict=True))
    graph = helper.make_graph(
        nodes,
        "four boxes",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info(name, kinds[name], None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, file)
    return file


@pytest.fixture
def runtime():
    pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(
    "shape", [[3, "height", "width"], [1, 3, "height", "width"], ["batch", 3, None, None], [3, 60, 80]]
)
def test_an_onnx_detector_sees_rgb_from_0_to_1_and_only_persons_count(tmp_path, runtime, shape):
    frame = np.zeros((60, 80, 3), np.uint8)
    frame[5, 6] = 255, 100, 30
    detect = load_detector(BuildConfig(detector=str(onnx_file(tmp_path / "four.onnx", shape)), device="cpu"))
    boxes, scores = detect(frame)
    assert boxes.tolist() == [[10, 20, 20, 40]]  # the second is no person, the third has 15 / 255, the last no area
    assert scores.tolist() == [0.5]


def test_frames_are_resized_for_an_onnx_detector_of_one_size_and_boxes_scaled_back(tmp_path, runtime):
    detect = load_detector(BuildConfig(detector=str(onnx_file(tmp_path / "four.onnx", [3, 30, 160])), device="cpu"))
    assert detect(np.full((60, 80, 3), 255, np.uint8))[0].tolist() == [[5, 40, 10, 80], [0.5, 4, 1.5, 12]]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"outputs": ("boxes", "labels", "confidence")}, "gives boxes, labels, confidence"),
        ({"shape": [1, 4, 60, 80]}, r"takes image tensor\(float\) \[1, 4, 60, 80\]"),
        ({"shape": [8, 3, 60, 80]}, r"takes image tensor\(float\) \[8, 3, 60, 80\]"),
        ({"shape": [60, 80]}, r"takes image tensor\(float\) \[60, 80\]"),
        ({"kind": 2}, r"takes image tensor\(uint8\)"),
    ],
)
def test_another_onnx_signature_is_refused(tmp_path, runtime, change, found):
    file = onnx_file(tmp_path / "other.onnx", **{"shape": [3, "h", "w"], **change})
    with pytest.raises(InputError, match=found):
        load_detector(BuildConfig(detector=str(file), device="cpu"))


def test_an_onnx_file_that_is_none_or_answers_something_else_is_refused(tmp_path, runtime):
    (tmp_path / "text.onnx").write_text("no model")
    for name in ("text.onnx", "missing.onnx"):
        with pytest.raises(InputError, match=f"{name} cannot be read as an ONNX file"):
            load_detector(BuildConfig(detector=str(tmp_path / name), device="cpu"))
    file = onnx_file(tmp_path / "three.onnx", [3, "h", "w"], boxes=BOXES[:3])
    with pytest.raises(InputError, match=r"boxes \(3, 4\), labels \(4,\)"):
        load_detector(BuildConfig(detector=str(file), device="cpu"))(noise())


@pytest.fixture
def video(tmp_path) -> Path:
    """30 grey frames, frame n with grey level 8 n."""
    file = tmp_path / "grey.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for number in range(1, 31):
        writer.write(np.full((48, 64, 3), 8 * number, np.uint8))
    writer.release()
    return file


class Counting:
    """A detector that finds n % 3 people in frame n, remembers its frames, and may be killed before one."""

    def __init__(self, dies_at: int | None = None):
        self.seen, self.dies_at = [], dies_at

    def __call__(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        number = round(rgb.mean() / 8)
        if number == self.dies_at:
            raise KeyboardInterrupt
        self.seen.append(number)
        box = np.array([[number + k / 3, 2, 10, 20.12345] for k in range(number % 3)]).reshape(-1, 4)
        return box, np.full(len(box), number / 100)


def test_a_video_s_people_become_motchallenge_lines(video, tmp_path):
    detector, told = Counting(), []
    detect_video(video, detector, 7, tmp_path / "det.txt", told.append, "grey.avi, 5 bytes")
    assert detector.seen == told == [1, 8, 15, 22, 29]
    assert (tmp_path / "det.txt").read_text().splitlines() == [
        "# grey.avi, 5 bytes",
        "1,-1,1.000,2.000,10.000,20.123,0.010000,-1,-1,-1",
        "8,-1,8.000,2.000,10.000,20.123,0.080000,-1,-1,-1",
        "8,-1,8.333,2.000,10.000,20.123,0.080000,-1,-1,-1",
        "22,-1,22.000,2.000,10.000,20.123,0.220000,-1,-1,-1",
        "29,-1,29.000,2.000,10.000,20.123,0.290000,-1,-1,-1",
        "29,-1,29.333,2.000,10.000,20.123,0.290000,-1,-1,-1",
    ]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["det.txt", "grey.avi"]
    again = Counting()
    detect_video(video, again, 7, tmp_path / "det.txt", title="grey.avi, 5 bytes")
    assert again.seen == []
    detect_video(video, again, 7, tmp_path / "det.txt", title="grey.avi, 6 bytes")  # fetched again: another file
    assert again.seen == [1, 8, 15, 22, 29]


def test_killed_anywhere_it_ends_with_the_same_file_and_detects_no_frame_twice(video, tmp_path):
    whole, out = tmp_path / "whole.txt", tmp_path / "det.txt"
    detect_video(video, Counting(), 1, whole)
    with pytest.raises(KeyboardInterrupt):
        detect_video(video, Counting(dies_at=29), 1, out)
    partial = tmp_path / "det.txt.partial"
    content = partial.read_bytes()
    assert not out.exists()
    for position in range(0, len(content) + 1, 29):
        partial.write_bytes(content[:position])
        done = sum(line.startswith(b"# done") for line in content[:position].split(b"\n")[:-1])
        detector = Counting()
        detect_video(video, detector, 1, out)
        assert out.read_bytes() == whole.read_bytes()
        assert detector.seen == list(range(done + 1, 31))
        assert not partial.exists()
        out.unlink()


def test_killed_between_the_last_frame_and_the_end_nothing_is_detected_again(video, tmp_path):
    detect_video(video, Counting(), 7, tmp_path / "whole.txt")
    lines = (tmp_path / "whole.txt").read_bytes()
    (tmp_path / "det.txt.partial").write_bytes(lines + b"# done 29\n")
    detector = Counting()
    detect_video(video, detector, 7, tmp_path / "det.txt")
    assert detector.seen == []
    assert (tmp_path / "det.txt").read_bytes() == lines


def scores_of(*seen: str) -> np.ndarray:
    names = "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist "
    names += "right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"  # COCO's order
    assert set(seen) <= set(names.split())
    return np.array([5.0 if name in seen else -1.0 for name in names.split()])


SHOULDERS = ("left_shoulder", "right_shoulder")


@pytest.mark.parametrize(
    ("seen", "enough"),
    [
        (("nose", *SHOULDERS, "left_hip"), True),
        (("right_ear", *SHOULDERS, "right_ankle"), True),
        (("left_eye", *SHOULDERS, "left_knee"), True),
        ((*SHOULDERS, "left_hip", "right_hip", "left_knee", "right_knee"), False),  # no head
        (("nose", "left_eye", "right_eye", *SHOULDERS, "left_elbow", "right_wrist"), False),  # no lower body
        (("nose", "left_shoulder", "left_hip", "left_knee"), False),  # half an upper body
        (("nose", "right_shoulder", "left_elbow", "left_hip"), False),
        ((), False),
    ],
)
def test_enough_of_a_person_is_seen(seen, enough):
    assert shows_enough(scores_of(*seen)) is enough


def test_a_box_has_the_key_points_of_the_person_that_overlaps_it_most():
    enough, little = scores_of("nose", *SHOULDERS, "left_hip"), scores_of("nose")
    persons = np.array([[0.0, 0, 10, 30], [3, 0, 10, 30], [100, 0, 10, 30]])
    box = np.array([[0.0, 0, 10, 29], [2, 0, 10, 30], [104, 0, 10, 30], [50, 0, 10, 30], [100, 1, 10, 30]])
    assert visible_boxes(box, persons, np.stack([enough, little, enough])).tolist() == [True, False, False, False, True]
    assert visible_boxes(box, persons[:0], np.empty((0, 17))).tolist() == [False] * 5
    assert visible_boxes(box[:0], persons, np.stack([enough] * 3)).tolist() == []


def tiny_keypoint_rcnn(weights=None, weights_backbone=None) -> detection.KeypointRCNN:
    """torchvision's model on a backbone of one layer; what it is asked for is in the biases alone."""
    torch.manual_seed(0)
    backbone = torch.nn.Conv2d(3, 4, 3, stride=16, padding=1)
    backbone.out_channels = 4
    model = detection.KeypointRCNN(
        backbone,
        rpn_anchor_generator=detection.rpn.AnchorGenerator(((32, 64),), ((1.0, 2.0),)),
        box_head=detection.faster_rcnn.TwoMLPHead(4 * 7 * 7, 16),
        box_predictor=detection.faster_rcnn.FastRCNNPredictor(16, 2),
        keypoint_head=detection.keypoint_rcnn.KeypointRCNNHeads(4, (8,)),
        keypoint_predictor=detection.keypoint_rcnn.KeypointRCNNPredictor(8, 17),
        min_size=64,
        box_roi_pool=MultiScaleRoIAlign(["0"], 7, 2),
        keypoint_roi_pool=MultiScaleRoIAlign(["0"], 14, 2),
    )
    return model.eval()


@pytest.mark.parametrize(
    ("hidden", "expected"), [((), True), ((0, 1, 2, 3), True), ((0, 1, 2, 3, 4), False), ((5,), False)]
)
def test_the_key_points_of_torchvision_s_model_decide(tmp_path, monkeypatch, hidden, expected):
    monkeypatch.setattr(detection, "keypointrcnn_resnet50_fpn", tiny_keypoint_rcnn)
    model = tiny_keypoint_rcnn()
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias[1] = 5
        model.roi_heads.keypoint_predictor.kps_score_lowres.bias[:] = 50
        model.roi_heads.keypoint_predictor.kps_score_lowres.bias[list(hidden)] = -50
    torch.save(model.state_dict(), tmp_path / "keypoints.pth")
    rule = load_keypoints(BuildConfig(keypoints=str(tmp_path / "keypoints.pth"), device="cpu"))
    with torch.inference_mode():
        (found,) = model([torch.from_numpy(noise()).permute(2, 0, 1) / 255])
    x0, y0, x1, y1 = found["boxes"].numpy()[:5].T
    box = np.stack([x0, y0, x1 - x0, y1 - y0], axis=1)
    assert len(box) == 5
    assert rule(noise(), box).tolist() == [expected] * 5
    assert rule(noise(), np.array([[500.0, 500, 10, 20]])).tolist() == [False]
