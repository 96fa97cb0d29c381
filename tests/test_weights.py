"""Weights files are read without running code, and every wrong one is told apart in words."""

import argparse
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
from lab.weights import depth_of, describe_init, identify, read_weights, resolve_weights, unwrap


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
    torch.save({"w": torch.ones(1000)}, tmp_path / "whole.pth")
    (tmp_path / "short.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:2000])
    torch.save({"w": torch.ones(2), "args": argparse.Namespace(lr=1)}, tmp_path / "objects.pth")
    for name, sentence in [
        ("text.pth", "cannot be read as a checkpoint"),
        ("page.pth", "a web page in place of weights"),
        ("pointer.pth", "a Git LFS pointer"),
        ("half.safetensors", "cannot be read as safetensors"),
        ("code.pth", r"holds Python objects \(builtins.print\)|holds Python objects \(print\)"),
        ("list.pth", "holds a list"),
        ("absent.pth", "no weights at"),
        ("short.pth", "cut short"),
        ("objects.pth", r"holds Python objects \(argparse.Namespace\) besides plain tensors"),
    ]:
        with pytest.raises(InputError, match=sentence) as raised:
            read_weights(tmp_path / name)
        assert "\n" not in str(raised.value)
        assert "\x1b" not in str(raised.value)
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


def test_what_is_in_a_file_is_recognised_and_said_in_words():
    with torch.device("meta"):
        trunk, mgn, moco = resnet(50).state_dict(), MGN(7, 101).state_dict(), MoCo(18, 16, 32).state_dict()
    classifier = {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    with_heads = {f"backbone.{key}": value for key, value in trunk.items()} | {"heads.weight": torch.zeros(1)}
    for content, kind, depth, labelled, words in (
        (trunk, "trunk", 50, False, "a bare ResNet-50 trunk"),
        (trunk | classifier, "trunk", 50, True, "a bare ResNet-50 trunk with ImageNet's classifier"),
        ({"model": trunk, "config": {"labelled": True}}, "trunk", 50, True, "a bare ResNet-50 trunk"),
        ({"model": with_heads}, "trunk", 50, False, "a ResNet-50 with other parts (heads.weight, …)"),
        (
            {"model": mgn, "iteration": 3},
            "mgn",
            101,
            False,
            "a fine-tuned MGN (ResNet-101, 7 identities; `lab evaluate",
        ),
        ({"state_dict": {f"module.{key}": value for key, value in moco.items()}}, "moco", 18, False, "a raw MoCo"),
    ):
        found = identify(content)
        assert (found.kind, found.depth, found.labelled) == (kind, depth, labelled)
        assert found.words.startswith(words)
    assert identify({"model": with_heads}).beside == ["heads.weight"]
    assert set(identify({"model": with_heads}).trunk) == set(trunk)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"layer1.0.bn1.IN.weight": 1, "conv1.weight": 1}, "instance norm"),
        ({"layer1.0.se.fc1.weight": 1, "conv1.weight": 1}, "squeeze-and-excitation"),
        ({"backbone.NL_2.0.g.weight": 1, "backbone.conv1.weight": 1}, "non-local blocks"),
        ({"layer1.0.conv2.weight": (128, 4, 3, 3), "conv1.weight": 1}, "ResNeXt or a wide ResNet"),
        ({"module.blocks.0.attn.qkv.weight": 1}, "a vision transformer"),
        ({"layers.0.blocks.0.attn.qkv.weight": 1}, "a vision transformer"),
        ({"b1_head.weight": 1, "b1.0.0.conv1.weight": 1}, "an MGN of another layout"),
        ({"encoder_k.conv1.weight": 1}, "without its query encoder"),
        ({"head.weight": 1}, "something unknown (its first entries are head.weight)"),
    ],
)
def test_other_networks_are_not_taken_for_a_trunk(state, words):
    found = identify({key: torch.zeros(shape) for key, shape in state.items()})
    assert (found.kind, found.trunk) == ("other", {})
    assert words in found.words


def test_a_content_without_tensors_and_with_a_strange_config():
    assert identify({"epoch": 3}).words == "something unknown (its first entries are epoch)"
    for config in (None, "yaml text", [1]):
        assert identify({"model": {}, "config": config}).config == {}


def test_unwrap_takes_the_state_dict_out_of_its_wrapping():
    tensor = torch.zeros(1)
    assert unwrap({"epoch": 3, "state_dict": {"module.queue": tensor}}) == {"queue": tensor}
    assert unwrap({"model": {"w": tensor, "name": "text"}, "optimizer": {}}) == {"w": tensor}
    assert unwrap({"model": {"state_dict": {"module._orig_mod.module.w": tensor}}}) == {"w": tensor}
    assert unwrap({"net": {"w": tensor}}) == {"w": tensor}


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_the_depth_is_read_off_the_keys(depth):
    with torch.device("meta"):
        assert depth_of(Embedder(depth).state_dict(), "trunk.") == depth
    with pytest.raises(InputError, match="expected a ResNet-18"):
        depth_of({})


def test_words_for_weights(tmp_path, monkeypatch):
    assert resolve_weights("shipped").is_file()
    (tmp_path / "checkpoint.pt").touch()
    assert resolve_weights(tmp_path) == tmp_path / "checkpoint.pt"
    with pytest.raises(InputError, match=r"no weights at imagenet;.*imagenet-r50.*lup-r50"):
        describe_init("imagenet")
    with pytest.raises(InputError, match=r"no weights at lup-r18;.*or one of shipped, imagenet-r18"):
        resolve_weights("lup-r18")


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


def test_a_wrong_file_under_a_released_name_is_refused_before_it_is_remembered(tmp_path, monkeypatch):
    """A page or another model that was saved by hand must not lock the right file out afterwards."""
    monkeypatch.setenv("LAB_WEIGHTS", str(tmp_path))
    file = tmp_path / "lup-mgn-market1501.pth"
    file.write_text("<html>Virus scan warning</html>")
    with pytest.raises(InputError, match="a web page in place of weights"):
        resolve_weights("lup-mgn-market1501")
    for wrong, words in (
        (resnet(18).state_dict(), "a bare ResNet-18 trunk"),
        ({"model": MGN(5, 50).state_dict()}, r"a fine-tuned MGN \(ResNet-50, 5 identities"),
        ({"model": MGN(751, 18).state_dict()}, r"a fine-tuned MGN \(ResNet-18, 751 identities"),
    ):
        torch.save(wrong, file)
        with pytest.raises(InputError, match=rf"'lup-mgn-market1501' and holds {words}.*expected MGN of Market-1501"):
            resolve_weights("lup-mgn-market1501")
    torch.save({"model": MGN(751, 50).state_dict()}, file)
    assert resolve_weights("lup-mgn-market1501") == file
    torch.save(resnet(50).state_dict(), tmp_path / "lup-r101.pth")
    with pytest.raises(InputError, match="holds a bare ResNet-50 trunk; expected the ResNet-101 trunk"):
        resolve_weights("lup-r101")


@pytest.mark.parametrize(("record", "sentence"), [("{", "cannot be read"), ("[]", "holds a list")])
def test_a_broken_record_of_checksums_is_named(tmp_path, monkeypatch, record, sentence):
    monkeypatch.setenv("LAB_WEIGHTS", str(tmp_path))
    torch.save(resnet(50).state_dict(), tmp_path / "lup-r50.pth")
    (tmp_path / "checksums.json").write_text(record)
    with pytest.raises(InputError, match=f"checksums.json {sentence}"):
        resolve_weights("lup-r50")


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
