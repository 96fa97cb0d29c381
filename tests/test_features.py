"""Feature extraction: order, size, unreadable crops, broken models, precision, mirrored crops; the colour histogram.

And an extraction that is stopped: it goes on where it was, with the same bytes, and never with rows of something else.
"""

import dataclasses
import json
import multiprocessing
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lab.backbone import Embedder
from lab.data.crops import read_image, resize, to_tensor
from lab.data.splits import ReidDataset, Split
from lab.errors import InputError
from lab.evaluate import partial as partial_module
from lab.evaluate.evaluate import evaluate_features, evaluate_run
from lab.evaluate.features import colour_histogram, extract
from lab.evaluate.partial import PartialFile
from lab.evaluate.settings import EvaluateConfig
from lab.finetune.mgn import MGN
from lab.runs import Features, Run


def save_crops(folder, colours, size=(20, 40)) -> list[str]:
    paths = []
    for i, colour in enumerate(colours):
        paths.append(str(folder / f"{i:04d}.png"))
        Image.new("RGB", size, colour).save(paths[-1])
    return paths


def mean_colour(images: torch.Tensor) -> torch.Tensor:
    return images.float().mean(dim=(2, 3))


COLOURS = [(10 * i, 255 - 10 * i, 7 * i) for i in range(7)]


class Batches:
    """Mean colours plus what the whole batch has in common, so that other batches would give other numbers.

    Counts its calls, and is interrupted in the one after `most`.
    """

    def __init__(self, most: int = 1000):
        self.calls, self.most = 0, most

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        if self.calls == self.most:
            raise KeyboardInterrupt
        self.calls += 1
        return mean_colour(images) + images.float().mean()


def textured_crops(folder, count: int, size=(32, 64)) -> list[str]:
    random = np.random.default_rng(0)
    paths = [str(folder / f"t{i}.png") for i in range(count)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    return paths


def as_saved(features: Features, folder: Path) -> bytes:
    features.save(folder / "saved.npz")
    return (folder / "saved.npz").read_bytes()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_features_come_in_the_order_of_the_crops(tmp_path, num_workers):
    paths = save_crops(tmp_path, COLOURS)[::-1]
    split = Split(paths, np.arange(7), np.arange(7) + 10)
    features = extract(mean_colour, split, 16, 8, batch_size=3, num_workers=num_workers)
    assert features.values.dtype == np.float32
    np.testing.assert_array_equal(features.values, np.array(COLOURS[::-1], np.float32))
    assert features.path.tolist() == paths
    assert features.pid.tolist() == list(range(7))
    assert features.camid.tolist() == list(range(10, 17))


def test_crops_are_resized_and_stay_bytes(tmp_path):
    seen = []

    def embed(images):
        seen.append((tuple(images.shape), images.dtype))
        return mean_colour(images)

    features = extract(embed, save_crops(tmp_path, COLOURS), 32, 12, batch_size=4)
    assert seen == [((4, 3, 32, 12), torch.uint8), ((3, 3, 32, 12), torch.uint8)]
    assert features.pid.tolist() == [-1] * 7


def test_resizing_is_bicubic(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    features = extract(lambda images: images.flatten(1), [str(tmp_path / "a.png")], 16, 8)
    expected = np.asarray(Image.fromarray(pixels).resize((8, 16), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    np.testing.assert_array_equal(features.values[0], expected.ravel())


def test_a_model_is_called_through_embed(tmp_path):
    class Model(nn.Module):
        def embed(self, images):
            return mean_colour(images) + 1

    features = extract(Model(), save_crops(tmp_path, COLOURS), 16, 8)
    np.testing.assert_array_equal(features.values, np.array(COLOURS, np.float32) + 1)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_crop_is_named_in_one_sentence(tmp_path, num_workers):
    paths = save_crops(tmp_path, COLOURS)
    (tmp_path / "0004.png").write_bytes((tmp_path / "0004.png").read_bytes()[:30])
    with pytest.raises(InputError, match=r"0004\.png cannot be read") as caught:
        extract(mean_colour, paths, 16, 8, num_workers=num_workers)
    assert "Traceback" not in str(caught.value)


def test_a_broken_model_is_reported(tmp_path):
    with pytest.raises(InputError, match=r"7 of 7 crops .*0000\.png"):
        extract(lambda images: mean_colour(images) * torch.nan, save_crops(tmp_path, COLOURS), 16, 8)


def test_no_crops_are_refused():
    with pytest.raises(InputError, match="no crop"):
        extract(mean_colour, [], 16, 8)


def test_colour_histogram_equals_counting_pixel_by_pixel():
    images = torch.randint(0, 256, (2, 3, 9, 4), dtype=torch.uint8, generator=torch.manual_seed(0))
    features = colour_histogram(images, stripes=2, bins=4).view(2, 2, 4, 4, 4)
    for picture in range(2):
        counts = np.zeros((2, 4, 4, 4))
        for y in range(9):
            for x in range(4):
                red, green, blue = (int(value) // 64 for value in images[picture, :, y, x])
                counts[0 if y < 5 else 1, red, green, blue] += 1
        shares = counts / counts.sum(axis=(1, 2, 3), keepdims=True)
        expected = np.sqrt(shares) / np.sqrt(shares.sum())
        np.testing.assert_allclose(features[picture].numpy(), expected, atol=1e-6)


def test_colour_histogram_is_blind_to_places_within_a_stripe_only():
    top, bottom = torch.zeros(2, 1, 3, 12, 6, dtype=torch.uint8)
    top[..., :6, :] = 200
    bottom[..., 6:, :] = 200
    mirrored = top.flip(3)
    features = colour_histogram(torch.cat([top, mirrored, bottom]))
    assert float(features[0] @ features[1]) == pytest.approx(1)
    assert float(features[0] @ features[2]) == pytest.approx(0)


@pytest.mark.parametrize("make", [lambda: Embedder(18), lambda: MGN(2, 18)])
def test_a_network_gives_what_it_gives_to_single_crops(tmp_path, make):
    torch.manual_seed(0)
    model, paths = make(), textured_crops(tmp_path, 3)
    crops = [to_tensor(resize(read_image(path), 64, 32)) for path in paths]
    expected = torch.cat([model.embed(crop[None]) for crop in crops]).numpy()
    found = extract(model, paths, 64, 32, batch_size=2)
    np.testing.assert_allclose(found.values, expected, atol=1e-5)


def test_bfloat16_gives_nearly_the_same_directions_as_float32(tmp_path):
    torch.manual_seed(0)
    model, paths = Embedder(18), textured_crops(tmp_path, 4)
    plain, half = (extract(model, paths, 64, 32, amp=amp).values for amp in ("off", "bfloat16"))
    assert half.dtype == np.float32
    assert np.abs(half - plain).max() > 0  # it was computed otherwise
    cosine = (half * plain).sum(1) / np.linalg.norm(half, axis=1) / np.linalg.norm(plain, axis=1)
    assert cosine.min() > 0.999


@pytest.mark.parametrize(
    ("amp", "words"), [("float16", "float16 and the device is the cpu"), ("int8", "amp is 'int8'")]
)
def test_a_precision_that_is_not_there_is_refused(tmp_path, amp, words):
    with pytest.raises(InputError, match=words):
        extract(mean_colour, save_crops(tmp_path, COLOURS), 16, 8, amp=amp)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
@pytest.mark.parametrize("amp", ["off", "bfloat16", "float16"])
def test_a_gpu_gives_the_features_of_the_cpu(tmp_path, amp):
    torch.manual_seed(0)
    model, paths = Embedder(18), textured_crops(tmp_path, 9)
    plain = extract(model, paths, 64, 32).values
    found = extract(model, paths, 64, 32, batch_size=2, num_workers=2, device="cuda", amp=amp).values
    assert found.dtype == np.float32
    assert ((found * plain).sum(1) > 0.999).all()


def test_mirrored_crops_are_added_and_the_sum_has_unit_length(tmp_path):
    paths = textured_crops(tmp_path, 3)

    def left_half(images):
        return images[..., :4].float().mean(dim=(2, 3))

    found = extract(left_half, paths, 16, 8, batch_size=2, flip=True).values
    for row, path in zip(found, paths, strict=True):
        pixels = np.asarray(resize(read_image(path), 16, 8), dtype=np.float64)
        expected = pixels[:, :4].mean(axis=(0, 1)) + pixels[:, ::-1][:, :4].mean(axis=(0, 1))
        np.testing.assert_allclose(row, expected / np.linalg.norm(expected), rtol=1e-6)


def test_an_interrupted_extraction_goes_on_and_ends_with_the_same_bytes(tmp_path):
    paths = save_crops(tmp_path, COLOURS)
    whole = as_saved(extract(Batches(), paths, 16, 8, batch_size=2), tmp_path)
    file = tmp_path / "features" / "set-gallery"
    with pytest.raises(KeyboardInterrupt):
        extract(Batches(2), paths, 16, 8, batch_size=2, rows=PartialFile(file, {"weights": "a"}))
    assert json.loads((tmp_path / "features" / "set-gallery.partial.json").read_text())["done"] == 4
    rows, second = PartialFile(file, {"weights": "a"}), Batches()
    assert as_saved(extract(second, paths, 16, 8, batch_size=2, rows=rows), tmp_path) == whole
    assert second.calls == 2
    third = Batches()  # it was killed before its end could be noticed: nothing is left to do
    again = extract(third, paths, 16, 8, batch_size=2, rows=PartialFile(file, {"weights": "a"}))
    assert as_saved(again, tmp_path) == whole
    assert third.calls == 0
    rows.remove()
    assert list((tmp_path / "features").iterdir()) == []


def test_the_progress_bar_starts_at_the_rows_that_are_there(tmp_path, capsys):
    paths, file = save_crops(tmp_path, COLOURS), tmp_path / "set"
    with pytest.raises(KeyboardInterrupt):
        extract(Batches(2), paths, 16, 8, batch_size=2, rows=PartialFile(file, {}))
    capsys.readouterr()
    extract(Batches(), paths, 16, 8, batch_size=2, rows=PartialFile(file, {}), progress=True)
    bars = capsys.readouterr().err
    assert "| 4/7" in bars
    assert "| 7/7" in bars
    assert "| 0/7" not in bars


def killed_in_the_third_batch(images: torch.Tensor) -> torch.Tensor:
    CALLS.append(len(images))
    if len(CALLS) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return Batches()(images)


CALLS = []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_killed_process_loses_only_what_was_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(partial_module, "WRITE_SECONDS", 0)
    paths, file = save_crops(tmp_path, COLOURS), tmp_path / "set"
    how = {"batch_size": 2, "rows": PartialFile(file, {})}
    child = multiprocessing.get_context("fork").Process(
        target=extract, args=(killed_in_the_third_batch, paths, 16, 8), kwargs=how
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    embed = Batches()
    found = extract(embed, paths, 16, 8, batch_size=2, rows=PartialFile(file, {}))
    assert embed.calls == 2
    assert as_saved(found, tmp_path) == as_saved(extract(Batches(), paths, 16, 8, batch_size=2), tmp_path)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"source": {"weights": "b"}}, r"made otherwise \(weights\)"),
        ({"amp": "bfloat16"}, r"made otherwise \(amp\)"),
        ({"flip": True}, r"made otherwise \(flip\)"),
        ({"batch_size": 4}, r"made otherwise \(batch_size\)"),
        ({"height": 24}, r"made otherwise \(height\)"),
        ({"replaced": 3}, "of other crops"),
        ({"broken": True}, "made otherwise"),
    ],
)
def test_rows_of_another_source_are_dropped(tmp_path, capsys, other, words):
    paths, file = save_crops(tmp_path, COLOURS), tmp_path / "set"
    with pytest.raises(KeyboardInterrupt):
        extract(Batches(2), paths, 16, 8, batch_size=2, rows=PartialFile(file, {"weights": "a"}))
    if "replaced" in other:
        Image.new("RGB", (20, 41), (9, 9, 9)).save(paths[other["replaced"]])
    if "broken" in other:
        (tmp_path / "set.partial.json").write_text('{"done": 4')
    height, source = other.get("height", 16), other.get("source", {"weights": "a"})
    how = {"batch_size": 2} | {key: other[key] for key in ("amp", "flip", "batch_size") if key in other}
    capsys.readouterr()
    found = extract(Batches(), paths, height, 8, **how, rows=PartialFile(file, source))
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert re.search(words, said)
    assert as_saved(found, tmp_path) == as_saved(extract(Batches(), paths, height, 8, **how), tmp_path)


def test_an_unreadable_crop_keeps_the_rows_before_it_until_it_is_mended(tmp_path, capsys):
    paths, file = save_crops(tmp_path, COLOURS), tmp_path / "set"
    good = Path(paths[5]).read_bytes()
    Path(paths[5]).write_bytes(good[:30])
    with pytest.raises(InputError, match=r"0005\.png cannot be read"):
        extract(Batches(), paths, 16, 8, batch_size=2, rows=PartialFile(file, {}))
    capsys.readouterr()
    without, left_out = Batches(), paths[:5] + paths[6:]
    found = extract(without, left_out, 16, 8, batch_size=2, rows=PartialFile(file, {}))
    assert without.calls == 1  # crops 4 and 6
    assert as_saved(found, tmp_path) == as_saved(extract(Batches(), left_out, 16, 8, batch_size=2), tmp_path)
    PartialFile(file, {}).remove()
    with pytest.raises(InputError):
        extract(Batches(), paths, 16, 8, batch_size=2, rows=PartialFile(file, {}))
    Path(paths[5]).write_bytes(good)
    mended = Batches()
    found = extract(mended, paths, 16, 8, batch_size=2, rows=PartialFile(file, {}))
    assert mended.calls == 2
    assert as_saved(found, tmp_path) == as_saved(extract(Batches(), paths, 16, 8, batch_size=2), tmp_path)
    assert capsys.readouterr().out == ""


def test_a_list_that_grew_goes_on_at_the_start_of_a_batch(tmp_path):
    paths, file = save_crops(tmp_path, COLOURS), tmp_path / "set"
    extract(Batches(), paths[:5], 16, 8, batch_size=2, rows=PartialFile(file, {}))
    embed = Batches()
    found = extract(embed, paths, 16, 8, batch_size=2, rows=PartialFile(file, {}))
    assert embed.calls == 2
    assert as_saved(found, tmp_path) == as_saved(extract(Batches(), paths, 16, 8, batch_size=2), tmp_path)


def test_several_processes_fill_one_file(tmp_path, capsys):
    paths, file = save_crops(tmp_path, COLOURS), tmp_path / "set"
    crops = Split(paths, np.arange(7), np.arange(7) + 10)
    with pytest.raises(KeyboardInterrupt):
        extract(Batches(1), crops, 16, 8, batch_size=2, rows=PartialFile(file, {}, 4, 7))
    first = extract(Batches(), crops, 16, 8, batch_size=2, rows=PartialFile(file, {}, 0, 4))
    second, embed = PartialFile(file, {}, 4, 7), Batches()
    rest = extract(embed, crops, 16, 8, batch_size=2, rows=second)
    assert embed.calls == 1
    assert capsys.readouterr().out == ""
    assert rest.pid.tolist() == [4, 5, 6]
    whole = extract(Batches(), crops, 16, 8, batch_size=2)
    np.testing.assert_array_equal(np.concatenate([first.values[:], rest.values[:]]), whole.values)
    np.testing.assert_array_equal(np.load(second.matrix), whole.values)
    alone = Batches()  # rows that were shared out otherwise are made anew
    extract(alone, crops, 16, 8, batch_size=2, rows=PartialFile(file, {}))
    assert alone.calls == 4
    assert capsys.readouterr().out.count("share") == 2
    with pytest.raises(ValueError, match="begin with a batch"):
        extract(Batches(), crops, 16, 8, batch_size=2, rows=PartialFile(file, {}, 3, 7))


def test_a_model_whose_features_changed_size_is_reported(tmp_path):
    paths, file = save_crops(tmp_path, COLOURS), tmp_path / "set"
    with pytest.raises(KeyboardInterrupt):
        extract(Batches(1), paths, 16, 8, batch_size=2, rows=PartialFile(file, {}))
    with pytest.raises(InputError, match="rows of 3 values, the model gives 384"):
        extract(lambda images: images.flatten(1), paths, 16, 8, batch_size=2, rows=PartialFile(file, {}))


def test_a_place_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "features").write_text("a file")
    with pytest.raises(InputError, match=r"cannot write .*set\.partial\.npy"):
        extract(mean_colour, save_crops(tmp_path, COLOURS), 16, 8, rows=PartialFile(tmp_path / "features" / "set", {}))


def test_broken_features_are_reported_when_they_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(partial_module, "WRITE_SECONDS", 0)
    calls = []

    def embed(images):
        calls.append(len(images))
        return mean_colour(images) * (torch.nan if len(calls) == 2 else 1)

    with pytest.raises(InputError, match=r"2 of 2 crops .*0002\.png.*broken"):
        extract(embed, save_crops(tmp_path, COLOURS), 16, 8, batch_size=2, rows=PartialFile(tmp_path / "set", {}))
    assert len(calls) == 2
    assert json.loads((tmp_path / "set.partial.json").read_text())["done"] == 2


@pytest.fixture
def people(tmp_path) -> ReidDataset:
    """Four queries, and seven gallery crops of the same people under another camera."""
    paths = textured_crops(tmp_path, 11)
    query, gallery = Split(paths[:4], range(4), [1] * 4), Split(paths[4:], [0, 1, 2, 3, 0, 1, 2], [2] * 7)
    return ReidDataset("people", gallery, query, gallery)


CONFIG = EvaluateConfig(num_workers=0, device="cpu", height=16, width=8, batch_size=2)


def start_run(folder) -> Run:
    run = Run.create(folder, "finetune", {"height": 16, "width": 8})
    run.checkpoint.write_bytes(b"weights")
    return run


def test_an_evaluation_that_was_interrupted_goes_on(tmp_path, people):
    run, whole = start_run(tmp_path / "run"), start_run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        evaluate_run(run, Batches(4), people, CONFIG, progress=False)
    assert (run.folder / "features" / "people-gallery.partial.npy").is_file()
    embed = Batches()
    evaluate_run(run, embed, people, CONFIG, progress=False)
    evaluate_run(whole, Batches(), people, CONFIG, progress=False)
    assert embed.calls == 2
    files = {file.name: file.read_bytes() for file in (run.folder / "features").iterdir()}
    assert files == {file.name: file.read_bytes() for file in (whole.folder / "features").iterdir()}
    assert len(files) == 4


def test_the_flip_test_is_another_protocol_with_features_of_its_own(tmp_path, people):
    run, embed = start_run(tmp_path / "run"), Batches()

    def calls(config) -> int:
        embed.calls = 0
        evaluate_run(run, embed, people, config, progress=False)
        return embed.calls

    def forget(file, *keys) -> None:
        note = json.loads(file.read_text())
        for key in keys:
            del note.get("settings", note)[key]
        file.write_text(json.dumps(note))

    assert calls(CONFIG) == 6
    for part in ("query", "gallery"):  # as they were before there was a flip test
        forget(run.folder / "features" / f"people-{part}.json", "flip")
    assert calls(CONFIG) == 0
    forget(run.folder / "eval" / "people" / "result.json", "flip", "multi_query")
    assert calls(CONFIG) == 0
    assert run.evals() == ["people"]
    forget(run.folder / "eval" / "people" / "result.json", "flip", "multi_query")
    flipped = dataclasses.replace(CONFIG, flip=True)
    assert calls(flipped) == 12
    assert run.evals() == ["people", "people-flip_None"]
    assert [run.result(name).settings.get("flip") for name in run.evals()] == [True, None]
    assert calls(flipped) == 0
    assert calls(CONFIG) == 6
    assert run.evals() == ["people", "people-flip_None", "people-flip_True"]


def test_features_that_lie_ready_cannot_be_flipped(tmp_path):
    features = Features(np.eye(4, dtype=np.float32), np.array([1, 1, 2, 2]), np.array([1, 2, 1, 2]), np.full(4, ""))
    with pytest.raises(InputError, match="leave flip out"):
        evaluate_features(Run(tmp_path / "run"), "set", features, features, dataclasses.replace(CONFIG, flip=True))
    assert not (tmp_path / "run").exists()
