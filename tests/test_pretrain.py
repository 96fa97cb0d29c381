"""The pre-training loop: recipe, schedule, log, checkpoint, going on, and what stops it."""

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from pictures import write_person
from PIL import Image
from same_runs import assert_same_run

from lab.cli import main
from lab.data.images import open_images
from lab.data.readers import list_images
from lab.data.tars import write_tars
from lab.errors import InputError
from lab.pixels import LUPERSON_MEAN, LUPERSON_STD
from lab.pretrain.augment import RECIPES, Recipe
from lab.pretrain.moco import MoCo
from lab.pretrain.train import PretrainConfig, learning_rate, load, make_optimizer, pretrain
from lab.runs import Run
from lab.training.precision import Precision

TINY = replace(
    PretrainConfig.tiny(), height=32, width=16, dim=8, queue_size=20, batch_size=8, bn_groups=2, epochs=2, num_workers=0,
    log_every=2, probe_every=1, lr=0.02,
)  # fmt: skip


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    root = tmp_path_factory.mktemp("crops")
    for number in range(34):
        write_person(root / f"{number:03d}.jpg", number, 1, size=(16, 32))
    return list_images(root)


def probe(model, epoch):
    return {"probe_mAP": epoch / 10}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, paths):
    run = Run.create(tmp_path_factory.mktemp("runs") / "r", "pretrain", TINY)
    pretrain(run, paths, TINY, after_epoch=probe, progress=False)
    return run


def test_defaults_are_the_published_recipe():
    config = PretrainConfig()
    published = dict(
        depth=50, height=256, width=128, dim=128, queue_size=65536, key_momentum=0.999, temperature=0.1,
        batch_size=2560, bn_groups=8, epochs=200, lr=0.3, sgd_momentum=0.9, weight_decay=1e-4, warmup_epochs=0,
    )  # fmt: skip
    assert {name: getattr(config, name) for name in published} == published
    recipe = RECIPES[config.augmentation]
    assert recipe == Recipe(color_jitter=0, grayscale=0.2, blur=0.5, erase=0.5, erase_max_area=0.6)
    np.testing.assert_allclose(np.array(LUPERSON_MEAN) / 255, (0.3525, 0.3106, 0.3140))
    np.testing.assert_allclose(np.array(LUPERSON_STD) / 255, (0.2660, 0.2522, 0.2505))


def test_the_schedule_is_a_cosine_per_epoch():
    config = PretrainConfig()
    assert learning_rate(0, 0.9, config) == 0.3
    assert learning_rate(100, 0.5, config) == pytest.approx(0.15)
    assert learning_rate(1, 0, config) == pytest.approx(0.29998149, abs=1e-8)  # the published value
    warm = replace(config, warmup_epochs=2)
    assert [learning_rate(epoch, within, warm) for epoch, within in [(0, 0), (1, 0.5)]] == pytest.approx([0, 0.225])


def test_the_log_has_every_step_that_was_due_and_the_probe(trained):
    log = trained.log()
    assert log["step"].tolist() == [0, 2, 4, 6, 8]  # 34 images are 4 batches of 8 an epoch
    assert log["epoch"].tolist() == [0, 1, 1, 2, 2]
    assert log["probe_mAP"].dropna().tolist() == [0, 0.1, 0.2]
    assert log["chance_loss"].dropna().tolist() == pytest.approx([math.log(21)] * 4)
    assert log["lr"].tolist()[1:] == pytest.approx(
        [learning_rate(0, 0.25, TINY), learning_rate(0, 0.75, TINY), 0.01, 0.01]
    )
    assert (
        log.loc[1:, ["loss", "accuracy", "batch_accuracy", "feature_std", "images_per_second"]].notna().all(axis=None)
    )


def test_the_checkpoint_says_what_it_is(trained):
    content = torch.load(trained.checkpoint, weights_only=True)
    assert {"model", "optimizer", "scaler", "step", "epoch", "rng", "config", "queue", "queue_ptr"} <= set(content)
    assert (content["step"], content["epoch"]) == (8, 2)
    assert int(content["queue_ptr"]) == 8 * 8 % 20
    assert content["config"] == json.loads((trained.folder / "config.json").read_text())["settings"]
    images = torch.zeros(2, 3, 32, 16, dtype=torch.uint8)
    assert load(trained.folder).embed(images).shape == (2, 512)


def test_a_run_that_was_stopped_ends_like_an_unbroken_one(trained, paths, tmp_path):
    config = replace(TINY, checkpoint_minutes=0.0)
    run = Run.create(tmp_path / "r", "pretrain", config)

    def stop_after_first(model, epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        return {"probe_mAP": epoch / 10}

    with pytest.raises(KeyboardInterrupt):
        pretrain(run, paths, config, after_epoch=stop_after_first, progress=False)
    assert torch.load(run.checkpoint, weights_only=True)["step"] == 3  # in the middle of a row of the log
    pretrain(run, paths, TINY, after_epoch=probe, progress=False)
    assert_same_run(run, trained)


def test_a_probe_may_come_later(paths, tmp_path):
    run = Run.create(tmp_path / "r", "pretrain", TINY)

    def stop(model, epoch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(
            run, paths, replace(TINY, checkpoint_minutes=0.0, probe_every=2), after_epoch=Later(stop), progress=False
        )
    run.trim_log(2)  # as a run without a probe would have left it
    table = run.log().drop(columns="probe_mAP")
    table[table["step"] > 0].to_csv(run.log_file, index=False)
    pretrain(run, paths, replace(TINY, probe_every=2), after_epoch=probe, progress=False)
    assert run.log()["probe_mAP"].tolist()[-1] == 0.2
    assert run.log()["probe_mAP"].isna().sum() == len(run.log()) - 1


class Later:
    """Measures nothing before the first epoch, and then what it is told."""

    def __init__(self, measure):
        self.measure = measure

    def __call__(self, model, epoch):
        return self.measure(model, epoch) if epoch else {"probe_mAP": 0.0}


def test_fused_sgd_begins_from_zero_momentum(trained):
    """Two steps by hand, of which float16 leaves out the first: 1 - 0.1 * 2, and no momentum of a step that never was."""
    model = MoCo(18, 8, 24)
    optimizer = make_optimizer(model, replace(TINY, lr=0.1, weight_decay=0.0))
    precision, weight = Precision(torch.device("cpu"), "float16"), model.encoder_q.fc[2].bias
    before = weight.detach().clone()
    for factor in (1e38, 2.0):
        precision.scale((factor * weight).sum()).backward()
        precision.step(optimizer)
    torch.testing.assert_close(weight.detach(), before - 0.1 * 2)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(paths, tmp_path):
    run = Run.create(tmp_path / "r", "pretrain", TINY)

    def poison(model, epoch):
        if epoch == 1:
            model.temperature = math.nan  # the weights of the epoch that ends are still good
        return {}

    with pytest.raises(
        InputError, match=r"step 5, and training cannot go on; the last good checkpoint is .*checkpoint.pt"
    ):
        pretrain(run, paths, replace(TINY, epochs=3, checkpoint_minutes=0.0), after_epoch=poison, progress=False)
    content = torch.load(run.checkpoint, weights_only=True)
    assert content["epoch"] == 1
    assert all(torch.isfinite(value).all() for value in content["model"].values() if value.is_floating_point())


def test_weights_that_are_not_finite_are_not_saved(paths, tmp_path):
    run = Run.create(tmp_path / "r", "pretrain", TINY)

    def poison(model, epoch):
        with torch.no_grad():
            model.encoder_q.conv1.weight.fill_(math.nan if epoch else 0.0)
        return {}

    with pytest.raises(InputError, match="no longer finite at step 4.*no checkpoint was written yet"):
        pretrain(run, paths, replace(TINY, epochs=1), after_epoch=poison, progress=False)
    assert not run.checkpoint.exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"batch_size": 64}, "34 images are fewer than one batch of 64"),
        ({"bn_groups": 3}, "cannot be split into 3 equal groups"),
        ({"bn_groups": 8}, "groups of at least 2"),
        ({"depth": 20}, "no ResNet-20"),
        ({"device": "gpu"}, "no device 'gpu'"),
        ({"amp": "float8"}, "amp is 'float8'"),
        ({"augmentation": "x"}, "no augmentation 'x'"),
        ({"seed": -1}, "--seed is -1"),
        ({"queue_size": 7}, "a queue of 7 keys cannot take a batch of 8"),
        ({"accumulate": 3}, "2 batch-norm groups cannot be gone through in 3 equal parts"),
        ({"keep": -1}, "-1 older checkpoints"),
        ({"log_every": 0}, "--log-every is 0; expected 1 or more"),
        ({"bn_groups": 0}, "--bn-groups is 0"),
        ({"num_workers": -1}, "--num-workers is -1; expected 0 or more"),
        ({"epochs": 0}, "--epochs is 0"),
        ({"device": "meta"}, "nothing here for device 'meta'"),
    ],
)
def test_settings_that_cannot_work_are_explained(paths, tmp_path, changes, sentence):
    config = replace(TINY, **changes)
    with pytest.raises(InputError, match=sentence):
        pretrain(Run(tmp_path), paths, config, progress=False)
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}


def test_a_pretrained_run_starts_the_next_one_with_its_head(trained, paths, tmp_path):
    run = Run.create(tmp_path / "r", "pretrain", TINY)
    model = pretrain(run, paths, replace(TINY, epochs=1, lr=0.0), init=trained.folder, progress=False)
    before = torch.load(trained.checkpoint, weights_only=True)["model"]
    torch.testing.assert_close(model.encoder_q.fc[2].weight, before["encoder_q.fc.2.weight"])
    torch.testing.assert_close(model.encoder_q.conv1.weight, before["encoder_q.conv1.weight"])


def test_cut_outs_are_put_into_places_and_need_their_alpha(tmp_path, paths):
    for number in range(16):
        write_person(tmp_path / "cut" / f"{number:02d}.png", number, 1, size=(16, 32))
        with Image.open(tmp_path / "cut" / f"{number:02d}.png") as image:
            image.putalpha(255 * (number % 2))
            image.save(tmp_path / "cut" / f"{number:02d}.png")
    config = replace(TINY, epochs=1)
    run = Run.create(tmp_path / "run", "pretrain", config)
    pretrain(run, list_images(tmp_path / "cut"), config, progress=False, places=paths[:3])
    assert len(run.log()) == 1
    with pytest.raises(InputError, match=r"crops cannot be read .* no alpha channel"):
        pretrain(Run.create(tmp_path / "other", "pretrain", config), paths, config, progress=False, places=paths[:3])


@pytest.fixture(scope="module")
def places(tmp_path_factory, paths):
    """The files of `paths` as LUPerson is released, a LMDB and a list of its keys, and as tar shards."""
    root = tmp_path_factory.mktemp("places")
    keys = [f"00_00_0000_{number:08d}" for number in range(len(paths))]
    images = [Path(path).read_bytes() for path in paths]
    (root / "store").mkdir()
    file = str(root / "store" / "lup_lmdb")
    with lmdb.open(file, map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for key, image in zip(keys, images, strict=True):
            transaction.put(key.encode(), image)
    (root / "store" / "keys.pkl").write_bytes(pickle.dumps({"keys": keys}))
    write_tars(zip(keys, images, [{}] * len(keys), strict=True), root / "tars", max_bytes=20_000)
    return {"store": root / "store", "tars": root / "tars"}


@pytest.mark.parametrize(("place", "workers"), [("store", 2), ("tars", 0)])
def test_a_store_and_tar_shards_train_as_the_files_do(trained, places, tmp_path, place, workers):
    config = replace(TINY, num_workers=workers)
    run = Run.create(tmp_path / "r", "pretrain", config)
    pretrain(run, open_images(places[place]), config, after_epoch=probe, progress=False)
    columns = ["step", "loss", "accuracy", "feature_std"]
    assert run.log()[columns].equals(trained.log()[columns])
    ours, theirs = (torch.load(r.checkpoint, weights_only=True)["model"] for r in (run, trained))
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())


def test_the_verb_takes_a_store_and_more_folders(places, paths, tmp_path):
    settings = "--depth 18 --height 32 --width 16 --dim 8 --queue-size 24 --batch-size 12 --bn-groups 2 --epochs 1"
    data = [str(places["store"]), str(Path(paths[0]).parent)]
    command = ["pretrain", "--data", *data, "--out", str(tmp_path / "r"), "--size", "tiny", *settings.split()]
    main(command)
    about = json.loads((tmp_path / "r" / "config.json").read_text())
    assert about["data"] == {"folders": data, "images": 68, "places": 0}
    assert Run.open(tmp_path / "r").log()["step"].tolist() == [5]


@pytest.mark.parametrize("workers", [0, 1])
def test_crops_that_cannot_be_read_are_said_in_one_sentence(tmp_path, workers):
    for number in range(16):
        write_person(tmp_path / "crops" / f"{number:02d}.jpg", number, 1, size=(16, 32))
        if number < 4:
            (tmp_path / "crops" / f"{number:02d}.jpg").write_bytes(b"nothing")
    config = replace(TINY, num_workers=workers)
    with pytest.raises(InputError) as caught:
        pretrain(
            Run.create(tmp_path / "r", "pretrain", config), list_images(tmp_path / "crops"), config, progress=False
        )
    sentence = str(caught.value)
    assert sentence.startswith("2 of 16 crops cannot be read (first: ")
    assert sentence.endswith("at most 1 are tolerated: mend or remove these files")
    assert "\n" not in sentence
