"""The fine-tuning loop: published schedule, augmentation, checkpoints, going on, and what bad input does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from same_runs import assert_same_run

from lab.backbone import resnet
from lab.data.readers import load as load_dataset
from lab.data.splits import Split
from lab.errors import InputError
from lab.finetune.augment import Augmentation, Draw, TrainingImages, draws
from lab.finetune.train import FinetuneConfig, finetune, frozen_steps, learning_rate, load, new_model, set_frozen
from lab.pixels import LUPERSON_MEAN, LUPERSON_STD
from lab.runs import Run
from lab.training.loading import load_batches

SMALL = replace(
    FinetuneConfig.tiny(), height=48, width=24, last_stride=1, epochs=2, ids_per_batch=4, images_per_id=4, padding=3,
    log_every=1, device="cpu", lr=3.5e-4, repeat=1,
)  # fmt: skip
EVERY_STEP = replace(SMALL, checkpoint_minutes=0.0)  # with its optimizer a checkpoint is 375 MB: only where it matters


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk():
    """On a slow disk syncing the checkpoints would be most of the test time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda file: None)
        yield


@pytest.fixture(scope="module")
def train(market) -> Split:
    """6 people x 6 crops: with batches of 16 an epoch has 2 steps."""
    return load_dataset("market1501", market).train.take(slice(0, 36))


@pytest.fixture(scope="module")
def trunk_file(tmp_path_factory) -> Path:
    torch.manual_seed(5)
    file = tmp_path_factory.mktemp("trunk") / "trunk.pt"
    torch.save(resnet(18).state_dict(), file)
    return file


@pytest.fixture(scope="module")
def finished(train, tmp_path_factory):
    """An unbroken run of two epochs: (run, model)."""
    run = Run.create(tmp_path_factory.mktemp("runs") / "straight", "finetune", SMALL)
    return run, finetune(run, train, SMALL, progress=False)


def test_the_learning_rate_rises_stays_and_falls_by_a_cosine():
    """60 steps as the published 60 epochs: 1 % of the rate, full from 10 to 30, half of the way down at 45."""
    config = FinetuneConfig()
    at = [learning_rate(step, 60, config) for step in (0, 5, 10, 30, 45)]
    middle = config.final_lr + (config.lr - config.final_lr) / 2
    assert at == pytest.approx([3.5e-6, (3.5e-6 + 3.5e-4) / 2, 3.5e-4, 3.5e-4, middle])
    assert learning_rate(59, 60, config) > config.final_lr


def test_the_frozen_phase_is_the_published_one():
    # FREEZE_ITERS 2020 of 12,120 at Market-1501: the steps 0 to 2020 are frozen; nothing is without initial weights
    assert frozen_steps(12120, 1 / 6, has_initial_weights=True) == 2021
    assert frozen_steps(12120, 1 / 6, has_initial_weights=False) == 0
    assert frozen_steps(12120, 0.0, has_initial_weights=True) == 0


def test_log_and_checkpoint_hold_what_the_contract_says(finished):
    run, model = finished
    log = run.log()
    assert list(log) == [
        "step", "epoch", "lr", "loss", "loss_cls", "loss_triplet", "accuracy", "images_per_second",
    ]  # fmt: skip
    assert log["step"].tolist() == [1, 2, 3, 4]
    assert log["epoch"].tolist() == [1, 1, 2, 2]
    assert np.allclose(log["loss"], log["loss_cls"] + log["loss_triplet"])
    assert log["lr"].iloc[-1] == pytest.approx(learning_rate(3, 4, SMALL))
    content = torch.load(run.checkpoint, weights_only=True)
    assert set(content) == {"model", "optimizer", "scaler", "step", "epoch", "meter", "rng", "config"}
    assert content["step"] == 4
    assert content["epoch"] == 2
    assert content["optimizer"] is None  # no step will follow
    assert content["config"]["ids_per_batch"] == 4
    again, batch = load(run.folder), torch.randint(0, 256, (2, 3, 48, 24), dtype=torch.uint8)
    assert not model.training
    torch.testing.assert_close(again.embed(batch), model.embed(batch), rtol=1e-3, atol=1e-5)  # other memory layout
    assert sorted(path.name for path in run.folder.iterdir()) == [".lock", "checkpoint.pt", "config.json", "log.csv"]


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(finished, train, tmp_path):
    straight, _ = finished
    run = Run.create(tmp_path / "run", "finetune", EVERY_STEP)

    def interrupt(model, epoch):
        run.append_log(run.log().iloc[-1].to_dict() | {"step": 3})  # a row that was logged and never saved
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(run, train, EVERY_STEP, after_epoch=interrupt, progress=False)
    content = torch.load(run.checkpoint, weights_only=True)
    assert content["step"] == 1
    assert content["optimizer"]["state"][0]["step"] == 1
    finetune(run, train, EVERY_STEP, progress=False)
    assert_same_run(run, straight)


def test_a_finished_run_is_not_trained_again(finished, train):
    run, model = finished
    before = run.checkpoint.stat().st_mtime_ns
    again = finetune(run, train, SMALL, progress=False)
    assert run.checkpoint.stat().st_mtime_ns == before
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in again.state_dict().items())


def test_the_frozen_phase_moves_heads_only(train, trunk_file, tmp_path):
    config = replace(SMALL, epochs=1, freeze=1.0)
    trunk = torch.load(trunk_file, weights_only=True)
    run = Run.create(tmp_path / "run", "finetune", config)
    state = finetune(run, train, config, trunk_file, progress=False).state_dict()
    assert torch.equal(state["backbone.4.0.conv1.weight"], trunk["layer1.0.conv1.weight"])
    assert torch.equal(state["b2.1.1.bn2.running_var"], trunk["layer4.1.bn2.running_var"])
    assert state["heads_extra_bn_b1.running_mean"].abs().max() > 0


def test_training_again_after_a_measurement_in_eval_mode(train, tmp_path):
    """A measurement leaves the model in eval mode; the next epoch must not train like that."""
    config = replace(SMALL, epochs=2, extra_bn="on")
    counts = []

    def measure(model, epoch):
        counts.append(model.heads_extra_bn_b1.num_batches_tracked.item())
        model.embed(torch.zeros(1, 3, 48, 24))
        return {"mAP": 0.5}

    finetune(Run.create(tmp_path / "run", "finetune", config), train, config, None, measure, progress=False)
    assert counts == [2, 4]


def test_set_frozen_can_be_undone():
    with torch.device("meta"):
        model, _ = new_model(SMALL, 5, None)
    set_frozen(model, True)
    assert not model.b3.training
    assert model.b31_head.training
    assert not model.b3[1][0].conv1.weight.requires_grad
    set_frozen(model, False)
    assert model.b3.training
    assert model.b3[1][0].conv1.weight.requires_grad
    assert not model.b3_head.bottleneck[1].bias.requires_grad


def test_settings_at_auto_follow_the_initial_weights(trunk_file, tmp_path):
    unlabelled, report = new_model(SMALL, 5, trunk_file)
    assert unlabelled.extra_bn
    assert report.fraction == 1.0
    assert unlabelled.pixel_std.flatten().tolist() == pytest.approx([63.872, 64.305, 63.839])
    imagenet = torch.load(trunk_file, weights_only=True)
    imagenet |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(imagenet, tmp_path / "imagenet.pt")
    labelled, _ = new_model(SMALL, 5, tmp_path / "imagenet.pt")
    assert not labelled.extra_bn
    assert labelled.pixel_mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])


def test_pixel_statistics_that_are_asked_for_must_fit_the_weights(trunk_file, tmp_path):
    """The red std of pre-training, 67.83, and of the published fine-tuning, 63.872, are two measurements of one thing."""
    weights = torch.load(trunk_file, weights_only=True)
    weights |= {"pixel_mean": torch.tensor(LUPERSON_MEAN), "pixel_std": torch.tensor(LUPERSON_STD)}
    torch.save(weights, tmp_path / "lup.pt")
    kept, _ = new_model(SMALL, 5, tmp_path / "lup.pt")
    torch.testing.assert_close(kept.pixel_std.flatten(), torch.tensor(LUPERSON_STD))
    published, _ = new_model(replace(SMALL, pixels="luperson"), 5, tmp_path / "lup.pt")
    assert published.pixel_std.flatten().tolist() == pytest.approx([63.872, 64.305, 63.839])
    with pytest.raises(
        InputError, match=r"trained with pixel mean 89.9, 79.2, 80.1 and --pixels imagenet asks for 123.7"
    ):
        new_model(replace(SMALL, pixels="imagenet"), 5, tmp_path / "lup.pt")


@pytest.mark.parametrize("groups", [0, 3, 16])
def test_a_batch_that_cannot_be_split_for_batch_norm(train, tmp_path, groups):
    config = replace(SMALL, bn_groups=groups)
    with pytest.raises(InputError, match=f"16 cannot be split into {groups} equal batch-norm groups"):
        finetune(Run.create(tmp_path / "run", "finetune", config), train, config, progress=False)
    assert untouched(Run.open(tmp_path / "run"))


# Augmentation


def test_padding_and_cropping_is_what_it_says():
    random = np.random.default_rng(0)
    image = random.integers(1, 256, (12, 8, 3), dtype=np.uint8)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    every = {padded[y : y + 12, x : x + 8].tobytes() for y in range(5) for x in range(5)}
    shift = Augmentation(flip=0, padding=2, erase=0)
    assert {shift(image, random).tobytes() for _ in range(400)} == every


def test_flip_and_erase_happen_half_of_the_time_within_their_bounds():
    random = np.random.default_rng(0)
    image = np.full((64, 32, 3), 200, dtype=np.uint8)
    image[:, 16:] = 100
    flipped, shares = 0, []
    for _ in range(1000):
        result = Augmentation(padding=0)(image, random)
        assert result.shape == image.shape
        assert result.dtype == np.uint8
        black = (result == 0).all(axis=2)
        if black.any():
            rows, columns = np.flatnonzero(black.any(axis=1)), np.flatnonzero(black.any(axis=0))
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert height * width == black.sum()
            assert 0.2 < height / width < 4.5
            shares.append(black.mean())
        flipped += result[0, 0, 0] == 100 or result[-1, 0, 0] == 100
    assert 430 < flipped < 570
    assert 430 < len(shares) < 570
    assert 0.015 < min(shares) < 0.04
    assert 0.35 < max(shares) < 0.42
    assert (image[:, :16] == 200).all(), "the given image must not change"


def test_an_epoch_is_the_same_with_and_without_cache_and_workers(train):
    requests = list(draws([np.arange(12), np.arange(24, 36)], first=0, last=2))

    def epoch(cache_gb, workers):
        images = TrainingImages(train, 48, 24, Augmentation(), seed=3, cache_gb=cache_gb)
        return list(load_batches(images, requests, workers, torch.device("cpu")))

    cached = epoch(1.0, 0)
    assert cached[0][0].shape == (12, 3, 48, 24)
    assert cached[0][0].dtype == torch.uint8
    assert cached[1][1].tolist() == train.labels[24:36].tolist()
    for other in (epoch(0.0, 0), epoch(0.0, 2)):
        for (ours, labels), (theirs, their_labels) in zip(cached, other, strict=True):
            assert torch.equal(ours, theirs)
            assert torch.equal(labels, their_labels)


def test_draws_go_on_where_they_stopped():
    batches = [np.arange(start, start + 2) for start in range(0, 10, 2)]
    everything = [(draw.step, draw.crops.tolist()) for draw in draws(batches, 0, 5)]
    assert [(draw.step, draw.crops.tolist()) for draw in draws(batches, 3, 5)] == everything[3:]
    assert everything[4] == (4, [8, 9])


def test_processes_share_a_batch_in_turn_and_draw_what_one_would(train):
    """Images of three processes, dealt out again in turn, are those of one."""
    batches = [np.arange(12), np.arange(12, 24)]
    images = TrainingImages(train, 48, 24, Augmentation(), seed=3)
    whole = [images.__getitems__(draw) for draw in draws(batches, 0, 2)]
    parts = [[images.__getitems__(draw) for draw in draws(batches, 0, 2, rank, 3)] for rank in range(3)]
    for step in range(2):
        for rank in range(3):
            for ours, theirs in zip(parts[rank][step], whole[step], strict=True):
                assert torch.equal(ours, theirs[rank::3])


def test_an_unreadable_crop_is_replaced_together_with_its_label(tmp_path):
    paths = [str(tmp_path / f"{number}.jpg") for number in range(4)]
    for number in (0, 2, 3):
        Image.new("RGB", (8, 16), (60 * number, 0, 0)).save(paths[number])
    (tmp_path / "1.jpg").write_bytes(b"not a picture")
    split = Split(paths, [5, 6, 7, 8], [0, 0, 0, 0])
    for cache_gb in (1.0, 0.0):
        images = TrainingImages(split, 16, 8, Augmentation(flip=0, padding=0, erase=0), seed=0, cache_gb=cache_gb)
        pictures, labels = images.__getitems__(Draw(0, np.array([1]), np.array([0])))
        assert labels.tolist() == [2]
        assert pictures[0, 0].float().mean() == pytest.approx(120, abs=3)


# Bad input


def untouched(run: Run) -> bool:
    return {path.name for path in run.folder.iterdir()} <= {"config.json", ".lock"}


def test_fewer_identities_than_a_batch_needs(train, tmp_path):
    config = replace(SMALL, fraction=0.5)
    run = Run.create(tmp_path / "run", "finetune", config)
    with pytest.raises(InputError, match="3 identities, and a batch needs 4"):
        finetune(run, train, config, progress=False)
    assert untouched(run)


def test_initial_weights_that_hold_no_trunk(train, tmp_path):
    file = tmp_path / "weights.pt"
    torch.save({"head.weight": torch.zeros(3)}, file)
    run = Run.create(tmp_path / "run", "finetune", SMALL)
    with pytest.raises(InputError, match="holds no trunk"):
        finetune(run, train, SMALL, file, progress=False)
    with pytest.raises(InputError, match="no weights at"):
        finetune(run, train, SMALL, tmp_path / "nowhere.pt", progress=False)
    assert untouched(run)


def test_initial_weights_of_another_depth(train, tmp_path):
    with torch.device("meta"):
        names = list(resnet(50).state_dict())
    torch.save(dict.fromkeys(names, torch.zeros(1)), tmp_path / "weights.pt")
    run = Run.create(tmp_path / "run", "finetune", SMALL)
    with pytest.raises(InputError, match="holds a ResNet-50 and the model is a ResNet-18; give --depth 50"):
        finetune(run, train, SMALL, tmp_path / "weights.pt", progress=False)
    assert untouched(run)


def test_a_loss_that_explodes_at_once_leaves_no_checkpoint(train, tmp_path):
    config = replace(SMALL, lr=1e30, warmup=0.0)
    run = Run.create(tmp_path / "run", "finetune", config)
    with pytest.raises(InputError, match=r"at step 2.*no checkpoint was written yet"):
        finetune(run, train, config, progress=False)
    assert not run.checkpoint.exists()


def test_a_loss_that_turns_nan_later_leaves_the_last_good_checkpoint(train, tmp_path):
    run = Run.create(tmp_path / "run", "finetune", EVERY_STEP)

    def poison(model, epoch):
        with torch.no_grad():
            model.b1_head.pool_layer.eps = float("nan")
        return {}

    with pytest.raises(
        InputError, match=r"the loss_cls is nan at step 3.*the last good checkpoint is .*checkpoint\.pt"
    ):
        finetune(run, train, EVERY_STEP, after_epoch=poison, progress=False)
    content = torch.load(run.checkpoint, weights_only=True)
    assert content["epoch"] == 1
    assert all(value.isfinite().all() for value in content["model"].values())


def test_weights_that_are_not_finite_are_not_saved(train, tmp_path):
    run = Run.create(tmp_path / "run", "finetune", EVERY_STEP)

    def poison(model, epoch):
        with torch.no_grad():
            model.b1_head.bottleneck[0].weight.fill_(float("nan"))
        return {}

    with pytest.raises(InputError, match="a weight or a running mean is no longer finite at step 2"):
        finetune(run, train, EVERY_STEP, after_epoch=poison, progress=False)
    assert torch.load(run.checkpoint, weights_only=True)["step"] == 1


def test_images_that_are_too_small_for_three_stripes(train, tmp_path):
    config = replace(SMALL, height=32)
    run = Run.create(tmp_path / "run", "finetune", config)
    with pytest.raises(InputError, match="a map of 2 row.*3 stripes"):
        finetune(run, train, config, progress=False)
    assert not run.checkpoint.exists()


def test_a_checkpoint_of_something_else_is_refused(tmp_path, trunk_file):
    with pytest.raises(InputError, match="a bare ResNet-18 trunk"):
        load(trunk_file)
    torch.save({"model": {"encoder_q.conv1.weight": torch.zeros(1)}}, tmp_path / "moco.pt")
    with pytest.raises(InputError, match="MoCo"):
        load(tmp_path / "moco.pt")
