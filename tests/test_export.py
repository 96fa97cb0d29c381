"""ONNX: the file says what torch says, for every model and batch size, and normalises its pictures exactly once."""

import json
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from lab import export
from lab.backbone import Embedder
from lab.errors import InputError
from lab.export import export_onnx, run_onnx
from lab.finetune.mgn import MGN
from lab.pixels import normalise, register_pixel_statistics
from lab.pretrain.moco import MoCo

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

HEIGHT, WIDTH = 64, 32


class Glance(nn.Module):
    """A model as small as one can be: the mean of the normalised pixels of each channel, at unit length."""

    def __init__(self, pixel_mean=(10.0, 20.0, 30.0), pixel_std=(2.0, 4.0, 8.0)):
        super().__init__()
        register_pixel_statistics(self, pixel_mean, pixel_std)

    def forward(self, images):
        return nn.functional.normalize(normalise(self, images).mean(dim=(2, 3)))

    @torch.inference_mode()
    def embed(self, images):
        return self(images)


def pictures(count: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 3, height, width), dtype=np.uint8)


def trained(model: nn.Module) -> nn.Module:
    """The model with batch norms that have seen images, and with its tensors laid out in memory as in training."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0.0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.train().to(memory_format=torch.channels_last)


def shortened(model: nn.Module) -> nn.Module:
    """The model with the first block alone of every ResNet layer: the same kinds of operations, half the time."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Sequential) and len(child) > 1 and all(isinstance(b, BasicBlock) for b in child):
                setattr(parent, name, child[:1])
    return model


@pytest.fixture(scope="module")
def mgn(tmp_path_factory):
    """test_cli.py exports one of full depth, with last_stride 1 and without extra batch norm."""
    torch.manual_seed(0)
    model = trained(shortened(MGN(5, depth=18, last_stride=2)))
    file = tmp_path_factory.mktemp("mgn") / "mgn.onnx"
    return model, file, export_onnx(model, file, 96, WIDTH, {"source": "mgn/checkpoint.pt"})


MODELS = {
    "MoCo": (lambda: MoCo(depth=18, dim=8, queue_size=16), 512),
    "a trunk alone": (lambda: shortened(Embedder(18)), 512),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_file_gives_the_features_of_torch(name, tmp_path):
    make, size = MODELS[name]
    torch.manual_seed(0)
    model = trained(make())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = export_onnx(model, tmp_path / "model.onnx", HEIGHT, WIDTH)
    assert model.training, "the given model is left as it was"
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert report.feature_size == size
    assert report.difference < 1e-5
    assert report.cosine > 1 - 1e-6
    assert_equal_features(model, tmp_path / "model.onnx", pictures(4))
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]  # the weights are inside


def assert_equal_features(model: nn.Module, file, images: np.ndarray) -> None:
    features = run_onnx(file, images)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, model.embed(torch.from_numpy(images)).numpy(), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)


def test_any_number_of_images_and_none_depends_on_the_others(mgn):
    model, file, report = mgn
    assert report.difference < 1e-5
    for count in (1, 2, 5):
        assert_equal_features(model, file, pictures(count, 96))
    images = pictures(5, 96)
    np.testing.assert_allclose(run_onnx(file, images[3:4])[0], run_onnx(file, images)[3], atol=1e-5)


def test_other_sizes_and_types_of_images_are_refused(mgn):
    file = mgn[1]
    with pytest.raises(Exception, match=r"expected: \(tensor\(uint8\)\)"):
        run_onnx(file, pictures(1, 96).astype(np.float32))
    with pytest.raises(Exception, match="Got: 64 Expected: 96"):
        run_onnx(file, pictures(1, 64))
    with pytest.raises(Exception, match="Got: 1 Expected: 3"):
        run_onnx(file, pictures(1, 96)[:, :1])


def test_pixels_are_normalised_exactly_once(tmp_path):
    export_onnx(Glance(), tmp_path / "glance.onnx", 4, 2)
    images = np.full((1, 3, 4, 2), 50, dtype=np.uint8)
    expected = np.array([20.0, 7.5, 2.5])  # (50 - 10) / 2, (50 - 20) / 4, (50 - 30) / 8
    features = run_onnx(tmp_path / "glance.onnx", images)
    np.testing.assert_allclose(features[0], expected / np.linalg.norm(expected), rtol=1e-6)
    images[0] = np.array([10, 20, 30]).reshape(3, 1, 1)  # the pixel mean itself
    assert (run_onnx(tmp_path / "glance.onnx", images) == 0).all()


def test_the_first_convolution_of_a_real_model_gets_what_torch_s_gets(mgn, tmp_path):
    """The graph, cut before its first convolution, gives (image - mean) / std of the checkpoint's own statistics."""
    model, file, _ = mgn
    graph = onnx.load(file).graph
    first = next(node for node in graph.node if node.op_type == "Conv")
    onnx.utils.extract_model(str(file), str(tmp_path / "start.onnx"), ["images"], [first.input[0]], check_model=False)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "start.onnx"), providers=["CPUExecutionProvider"])
    images = pictures(2, 96)
    given = session.run(None, {"images": images})[0]
    mean, std = (getattr(model, name).numpy() for name in ("pixel_mean", "pixel_std"))
    np.testing.assert_allclose(given, (images.astype(np.float64) - mean) / std, atol=1e-5)


def test_the_file_says_what_it_is_and_nothing_about_this_machine(mgn):
    model, file, report = mgn
    stored = onnx.load(file)
    onnx.checker.check_model(stored)
    entries = {entry.key: entry.value for entry in stored.metadata_props}
    assert entries["input"] == "images: uint8 (batch, 3, 96, 32), RGB, 0..255, normalised inside"
    assert "Pillow's bicubic filter" in entries["resize"]
    assert (entries["model"], entries["height"], entries["width"]) == ("MGN", "96", "32")
    assert (entries["feature_size"], entries["source"]) == ("2048", "mgn/checkpoint.pt")
    np.testing.assert_allclose(json.loads(entries["pixel_std"]), model.pixel_std.flatten(), atol=1e-3)
    assert [(entry.domain, entry.version) for entry in stored.opset_import] == [("", export.OPSET)]
    content = file.read_bytes()
    assert not [word for word in (b"site-packages", b"mgn.py", b"stack_trace", b"classifier") if word in content]
    assert f"{len(content) / 1e6:.1f} MB" in str(report)


def test_a_file_that_does_not_agree_is_not_written(monkeypatch, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"an earlier file")
    monkeypatch.setattr(export, "_with_descriptor_as_forward", lambda _: Glance((11.0, 20.0, 30.0)).eval())
    with pytest.raises(InputError, match=r"differ from torch's by .* so nothing was written"):
        export_onnx(Glance(), tmp_path / "model.onnx", 4, 2)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"an earlier file"]


def test_an_exporter_that_cannot_translate_the_model_says_what_to_install(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise torch.onnx.OnnxExporterError("many\nlines")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(InputError, match="pip install --upgrade torch"):
        export_onnx(Glance(), tmp_path / "model.onnx", 4, 2)
    assert not list(tmp_path.iterdir())


def test_features_that_are_not_finite_are_no_agreement(tmp_path):
    with pytest.raises(InputError, match="differ from torch's by nan"):
        export_onnx(Glance(pixel_std=(float("nan"), 1.0, 1.0)), tmp_path / "model.onnx", 4, 2)
    assert not list(tmp_path.iterdir())


def test_bad_requests_are_one_sentence(monkeypatch, tmp_path):
    def sentence(out=tmp_path / "model.onnx", height=4, width=2, model=None) -> str:
        with pytest.raises(InputError) as caught:
            export_onnx(model or Glance(), out, height, width)
        assert not [file for file in tmp_path.rglob("*") if file.is_file()]
        return str(caught.value)

    assert "expected a name that ends in .onnx" in sentence(tmp_path / "model.pt")
    (tmp_path / "folder.onnx").mkdir()
    assert "expected a name that ends in .onnx" in sentence(tmp_path / "folder.onnx")
    assert "cannot write" in sentence(tmp_path / "nowhere" / "model.onnx")
    assert "the image size is 0 x 2" in sentence(height=0)
    assert "give a map of 2 row(s)" in sentence(height=64, width=32, model=MGN(2, depth=18, last_stride=2))
    for package in ("onnx", "onnxscript", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            assert f"the package {package} is missing" in (said := sentence())
            assert "pip install 'luperson-lab[export]'" in said
