"""The plain references that training's speed is compared with compute what the lab computes, and speeds are read right."""

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from lab.data import load
from lab.data.importing import import_images
from lab.data.store import Store
from lab.finetune.losses import mgn_losses
from lab.finetune.mgn import MGN
from lab.finetune.train import FinetuneConfig
from lab.pretrain.moco import MoCo
from lab.pretrain.train import PretrainConfig

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def benchmarks():
    """The folder of the benchmarks, whose scripts import one another, on the path: (plain_training, pretrain)."""
    names = {"plain_training", "pretrain", "finetune", "processes", "report"}
    before = set(sys.modules)
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    import plain_training
    import pretrain

    yield plain_training, pretrain
    sys.path.pop(0)
    for name in names & (set(sys.modules) - before):
        del sys.modules[name]


@pytest.fixture(scope="module")
def plain(benchmarks):
    return benchmarks[0]


@pytest.fixture(scope="module")
def harness(benchmarks):
    return benchmarks[1]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models are so small here that a second thread would mostly wait for the first."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def same(given: dict, expected: dict) -> None:
    assert given.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(float(value.abs().max()), 1e-5)
        assert float((given[name] - value).abs().max()) < 2e-3 * scale, name


def test_plain_moco_has_the_lab_s_loss_gradients_keys_and_queue(plain):
    torch.manual_seed(0)
    lab = MoCo(18, dim=16, queue_size=14, key_momentum=0.9, temperature=0.1).train()
    with torch.no_grad():
        for parameter in lab.encoder_k.parameters():
            parameter.mul_(1.1)  # the two encoders differ, as they do after some steps
    own = plain.MoCo(18, 16, 14, 0.9, 0.1).train()
    own.load_state_dict({name: value for name, value in lab.state_dict().items() if not name.startswith("pixel")})
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (plain.MEAN, plain.STD))
    for _ in range(2):  # the second batch goes around the end of the queue
        views = 255 * torch.rand(2, 8, 3, 64, 32)
        expected = lab(*views).loss
        logits = own(*((views / 255 - mean) / std))
        loss = nn.functional.cross_entropy(logits, torch.zeros(8, dtype=torch.long))
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
        for model, value in ((lab, expected), (own, loss)):
            model.zero_grad()
            value.backward()
        same(gradients(own), gradients(lab))
    assert int(own.queue_ptr) == 2
    torch.testing.assert_close(own.queue, lab.queue, rtol=1e-3, atol=1e-4)
    same(dict(own.encoder_k.named_parameters()), dict(lab.encoder_k.named_parameters()))


@pytest.mark.parametrize("last_stride", [1, 2])
def test_plain_mgn_has_the_lab_s_losses_and_gradients(plain, last_stride):
    torch.manual_seed(0)
    lab = MGN(5, 18, last_stride=last_stride).train()
    own = plain.MGN(5, 18, last_stride).train()
    own.load_state_dict(lab.state_dict())
    images, labels = torch.randint(0, 256, (6, 3, 64 * last_stride, 32 * last_stride)), torch.tensor([3, 3, 0, 0, 4, 4])
    expected, _ = mgn_losses(lab.features(images), lab.class_weights(), labels)
    given = plain.mgn_losses(own, own(images.float()), labels)
    assert {name: value.item() for name, value in given.items()} == pytest.approx(
        {name: value.item() for name, value in expected.items()}, rel=1e-3
    )
    sum(expected.values()).backward()
    sum(given.values()).backward()
    same(gradients(own), gradients(lab))


def test_plain_triplets_of_features_that_overflow_have_a_margin(plain):
    features, labels = torch.tensor([[0.0], [1000.0], [1.0], [1001.0]]), torch.tensor([0, 0, 1, 1])
    # every anchor's d_ap is 1000 and its d_an is 1; exp(999) is infinite, and 0.3 is the published way out
    assert plain.hard_triplet(features, labels).item() == pytest.approx(1000 - 1 + 0.3)


def test_plain_pretraining_takes_its_steps_from_a_store(plain, market, tmp_path):
    import_images(market / "bounding_box_train", tmp_path / "store")
    store = Store(tmp_path / "store")
    config = PretrainConfig(
        depth=18, height=64, width=32, dim=8, queue_size=16, batch_size=20, num_workers=0, lr=0.01, amp="off"
    )
    losses = list(plain.pretraining(store.lmdb, [bytes(key) for key in store.keys], config, CPU))
    assert len(losses) == len(store) // 20 == 2
    assert all(0 < loss < 30 for loss in losses)


def test_plain_finetuning_takes_its_steps_from_files(plain, market):
    config = FinetuneConfig(
        depth=18, height=64, width=32, ids_per_batch=3, images_per_id=2, num_workers=0, padding=4, amp="off"
    )
    steps = list(plain.finetuning(load("market1501", market).train, config, 2, CPU))
    assert len(steps) == 2
    assert len(steps[0]) == 13
    assert all(0 <= value < 30 for value in steps[1].values())


def test_a_logged_speed_is_images_over_seconds_after_the_warm_up(harness):
    log = pd.DataFrame({"step": [2, 4, 6, 7], "images_per_second": [1.0, 100.0, 50.0, 25.0]})
    # batches of 10: 20 images in 0.2 s, 20 in 0.4 s, 10 in 0.4 s
    assert harness.logged_speed(log, warm_up=2) == pytest.approx(50 / 1.0)
    assert harness.logged_speed(log, warm_up=3) == pytest.approx(30 / 0.8)


def test_operations_are_counted_forward_and_backward(harness):
    layer = nn.Linear(7, 5, bias=False)

    def step(count: int) -> None:
        layer(torch.rand(count, 7)).sum().backward()

    # 2 x 7 x 5 forward, and as many for the weight's gradient; the input needs none
    assert harness.flop_per_image(step, 4) == 2 * (2 * 7 * 5)


def test_the_table_compares_within_a_round(harness):
    rows = [(0, 100.0, 90.0, 30.0), (1, 50.0, 48.0, 20.0), (2, 80.0, 60.0, 10.0)]
    names = harness.MODEL, harness.PIPELINE, harness.PLAIN
    turns = pd.DataFrame(
        [
            {"round": number, "job": name, "images/s": speed}
            for number, *speeds in rows
            for name, speed in zip(names, speeds, strict=True)
        ]
    )
    table = harness.summary(turns).set_index("job")
    pipeline = table.loc[harness.PIPELINE]
    assert pipeline["images/s"] == 60
    assert (pipeline["slowest"], pipeline["fastest"]) == (48, 90)
    assert pipeline["x (a)"] == pytest.approx(0.9)  # of 0.9, 0.96, 0.75
    assert pipeline["x (c)"] == pytest.approx(3)  # of 3, 2.4, 6
