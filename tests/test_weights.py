"""Weights files are read without running code, and every wrong one is told apart in words."""

import re
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lab.backbone import Embedder, resnet
from lab.errors import InputError
from lab.finetune.mgn import MGN
from lab.pretrain.moco import MoCo
from lab.weights import depth_of, describe_init, describe_weights, read_weights, resolve_weights, unwrap


class Sneaky:
    def __reduce__(self):
        return (print, ("code from a weights file was run",))


def test_files_that_are_no_weights_are_named(tmp_path, capsys):
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>Quota exceeded</html>")
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (tmp_path / "half.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    torch.save(Sneaky(), tmp_path / "code.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    for name, sentence in [
        ("text.pth", "cannot be read as a checkpoint"),
        ("page.pth", "a web page in place of weights"),
        ("pointer.pth", "a Git LFS pointer"),
        ("half.safetensors", "cannot be read as safetensors"),
        ("code.pth", "plain tensors"),
        ("list.pth", "holds a list"),
        ("absent.pth", "no weights at"),
    ]:
        with pytest.raises(InputError, match=sentence):
            read_weights(tmp_path / name)
    assert "was run" not in capsys.readouterr().out


@pytest.mark.parametrize("numpy_module", [b"numpy._core.multiarray", b"numpy.core.multiarray"])
def test_numbers_of_numpy_in_a_checkpoint_are_read(tmp_path, numpy_module):
    """Training programs keep a best score beside the weights; numpy 1 and 2 name its class by different modules."""
    torch.save({"model": {"w": torch.ones(2)}, "best": np.float64(0.25), "epoch": np.int64(3)}, tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as saved, zipfile.ZipFile(tmp_path / "a.pth", "w") as renamed:
        for name in saved.namelist():
            renamed.writestr(name, re.sub(rb"numpy\._?core\.multiarray", numpy_module, saved.read(name)))
    content = read_weights(tmp_path / "a.pth")
    assert content["best"] == 0.25
    assert content["epoch"] == 3
    assert torch.equal(content["model"]["w"], torch.ones(2))


def test_a_config_travels_in_safetensors(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "with.safetensors", metadata={"config": '{"last_stride": 2}'})
    content = read_weights(tmp_path / "with.safetensors")
    assert content["config"] == {"last_stride": 2}
    assert torch.equal(content["model"]["w"], torch.ones(2))
    save_file({"w": torch.ones(2)}, tmp_path / "without.safetensors")
    assert list(read_weights(tmp_path / "without.safetensors")) == ["w"]


def test_what_is_in_a_file_is_said_in_words():
    with torch.device("meta"):
        trunk, mgn, moco = resnet(50).state_dict(), MGN(7, 50).state_dict(), MoCo(18, 16, 32).state_dict()
    assert describe_weights(trunk) == "a bare ResNet-50 trunk"
    imagenet = trunk | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    assert describe_weights(imagenet) == "a bare ResNet-50 trunk with ImageNet's classifier"
    assert "a fine-tuned MGN" in describe_weights({"model": mgn, "iteration": 3})
    assert "raw MoCo" in describe_weights({"state_dict": {f"module.{key}": value for key, value in moco.items()}})
    assert "one head" in describe_weights({"model": {"backbone.layer1.0.conv1.weight": torch.zeros(1)}})
    assert describe_weights({"epoch": 3}) == "something unknown (its first entries are epoch)"


def test_unwrap_takes_the_state_dict_out_of_its_wrapping():
    tensor = torch.zeros(1)
    assert unwrap({"epoch": 3, "state_dict": {"module.queue": tensor}}) == {"queue": tensor}
    assert unwrap({"model": {"w": tensor, "name": "text"}, "optimizer": {}}) == {"w": tensor}


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_the_depth_is_read_off_the_keys(depth):
    with torch.device("meta"):
        assert depth_of(Embedder(depth).state_dict(), "trunk.") == depth
    with pytest.raises(InputError, match="expected a ResNet-18"):
        depth_of({})


def test_words_for_weights(tmp_path, monkeypatch):
    assert resolve_weights("shipped").is_file()
    assert resolve_weights(tmp_path) == tmp_path / "checkpoint.pt"
    assert resolve_weights("some.pth") == Path("some.pth")
    with pytest.raises(InputError, match=r"no weights at imagenet;.*imagenet-r50.*lup-r50"):
        describe_init("imagenet")


def test_imagenet_weights_come_from_torchvision_s_own_cache_or_download(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    asked = []

    def refuse(url, **options):
        asked.append((url, options["check_hash"]))
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    with pytest.raises(InputError, match=r"ImageNet weights of ResNet-50 cannot be downloaded \(no network\)"):
        resolve_weights("imagenet-r50")
    ((url, check_hash),) = asked
    assert check_hash
    cached = tmp_path / "hub" / "checkpoints" / url.rsplit("/", 1)[1]
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"weights")
    assert resolve_weights("imagenet-r50") == cached
    assert len(asked) == 1


def fake_drive(monkeypatch, content: dict | bytes | None) -> list:
    """Put a gdown in place that 'downloads' this content; returns what it was asked for."""
    asked = []

    def download(id, output):
        asked.append(id)
        if content is None:
            raise OSError("quota exceeded")
        if isinstance(content, bytes):
            Path(output).write_bytes(content)
        else:
            torch.save(content, output)
        return output

    errors = SimpleNamespace(DownloadError=type("DownloadError", (Exception,), {}))
    monkeypatch.setitem(sys.modules, "gdown", SimpleNamespace(download=download, exceptions=errors))
    return asked


def test_a_released_file_is_downloaded_once_and_checked_ever_after(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LAB_WEIGHTS", str(tmp_path / "kept"))
    asked = fake_drive(monkeypatch, resnet(50).state_dict())
    file = resolve_weights("lup-r50")
    assert file == tmp_path / "kept" / "lup-r50.pth"
    assert "commercial use is forbidden" in capsys.readouterr().out
    assert resolve_weights("lup-r50") == file
    assert asked == ["1pFyAdt9BOZCtzaLiE-W3CsX_kgWABKK6"]
    torch.save(resnet(50).state_dict(), file)  # other weights under the same name
    with pytest.raises(InputError, match=r"SHA-256 .* was recorded when it was first used"):
        resolve_weights("lup-r50")


def test_a_released_file_that_holds_something_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_WEIGHTS", str(tmp_path))
    fake_drive(monkeypatch, resnet(18).state_dict())
    with pytest.raises(InputError, match=r"'lup-r101' and holds a bare ResNet-18 trunk; expected the ResNet-101 trunk"):
        resolve_weights("lup-r101")
    with pytest.raises(InputError, match=r"'lup-mgn-msmt17' and holds a bare ResNet-18 trunk; expected MGN of MSMT17"):
        resolve_weights("lup-mgn-msmt17")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "quota exceeded"), (b"<html>quota</html>", "a web page came"), (b"", "a web page came")],
)
def test_a_download_that_fails_leaves_nothing_and_says_how_to_get_it_by_hand(tmp_path, monkeypatch, content, reason):
    monkeypatch.setenv("LAB_WEIGHTS", str(tmp_path))
    fake_drive(monkeypatch, content)
    with pytest.raises(
        InputError, match=rf"could not be downloaded \({reason}.*open https.*in a browser and save the file"
    ):
        resolve_weights("lup-r50")
    assert list(tmp_path.iterdir()) == []


def test_without_gdown_the_way_by_hand_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_WEIGHTS", str(tmp_path))
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(InputError, match=r"pip install 'gdown>=6', or open https://drive.google.com/uc\?id=1pFy"):
        resolve_weights("lup-r50")
