"""MoCo: logits by hand, the queue's wrap-around, what shuffling and groups do (the published values: tests/golden)."""

import math

import pytest
import torch
from torch.nn import functional as F

from lab.errors import InputError
from lab.pixels import normalise
from lab.pretrain.moco import Contrast, MoCo, from_official


def small(**changes) -> MoCo:
    torch.manual_seed(0)
    return MoCo(**(dict(depth=18, dim=16, queue_size=20, key_momentum=0.9, temperature=0.5) | changes))


def views(count=8, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (2, count, 3, 32, 16), generator=generator, dtype=torch.uint8)


def test_logits_are_cosines_with_the_own_key_first_then_the_queue_as_it_was():
    model = small()
    queue = model.queue.clone()
    contrast = model(*views())
    expected = torch.empty(8, 21)
    for i in range(8):
        expected[i, 0] = contrast.q[i] @ contrast.k[i] / 0.5
        for j in range(20):
            expected[i, 1 + j] = contrast.q[i] @ queue[:, j] / 0.5
    torch.testing.assert_close(contrast.logits, expected)
    by_hand = -torch.stack([row[0] - torch.logsumexp(row, 0) for row in expected]).mean()
    torch.testing.assert_close(contrast.loss, by_hand)


def test_an_untrained_loss_is_near_chance_and_a_perfect_one_near_zero():
    assert Contrast(torch.zeros(4, 21), torch.eye(4), torch.eye(4)).loss.item() == pytest.approx(math.log(21))
    perfect = torch.full((4, 21), -50.0)
    perfect[:, 0] = 50
    contrast = Contrast(perfect, torch.eye(4), torch.eye(4))
    assert contrast.loss.item() == pytest.approx(0, abs=1e-6)
    assert contrast.accuracy == 1
    assert contrast.batch_accuracy == 1
    assert Contrast(perfect, torch.eye(4), torch.eye(4).roll(1, 0)).batch_accuracy == 0


def test_the_queue_wraps_around_and_forgets_the_oldest_keys():
    model = small(queue_size=20)
    keys = torch.arange(3 * 8 * 16, dtype=torch.float32).view(3, 8, 16)
    for step in range(3):  # 24 keys into 20 places
        model.enqueue(keys[step])
    expected = torch.cat([keys[2, 4:], keys[0, 4:], keys[1], keys[2, :4]])
    torch.testing.assert_close(model.queue.T, expected)
    assert int(model.queue_ptr) == 4


def test_a_stored_pointer_at_the_end_means_the_start():
    model = small(queue_size=16)
    model.queue_ptr[0] = 16  # as published checkpoints may hold
    keys = torch.ones(8, 16)
    model.enqueue(keys)
    torch.testing.assert_close(model.queue[:, :8].T, keys)
    assert int(model.queue_ptr) == 8


def test_the_key_encoder_is_a_moving_average_of_parameters_and_gets_no_gradient():
    model = small()
    with torch.no_grad():
        for parameter in model.encoder_q.parameters():
            parameter += 1
    before = [parameter.clone() for parameter in model.encoder_k.parameters()]
    contrast = model(*views())
    contrast.loss.backward()
    after = list(model.encoder_k.parameters())
    for old, new, query in zip(before, after, model.encoder_q.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * query)
        assert new.grad is None
        assert query.grad is not None


def test_groups_have_batch_norm_statistics_of_their_own():
    model = small(bn_groups=2)
    view_q, view_k = views()
    q = model(view_q, view_k).q
    alone = small(bn_groups=1)
    first = F.normalize(alone.encoder_q(normalise(alone, view_q[:4])))
    torch.testing.assert_close(q[:4], first)
    assert not torch.allclose(q, small(bn_groups=1)(view_q, view_k).q, atol=1e-3)


def test_keys_come_back_in_order_and_their_groups_are_mixed():
    model, images = small(bn_groups=2), views()[1]
    groups = []
    model.encoder_k.register_forward_hook(lambda _module, inputs, _output: groups.append(inputs[0]))
    model.encoder_k.eval()  # without batch statistics the order is all that can differ
    order = torch.tensor([3, 0, 6, 5, 1, 7, 2, 4])
    keys = model.encode_keys(images[order], order)
    expected = F.normalize(model.encoder_k(normalise(model, images)))
    torch.testing.assert_close(keys, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(groups[0], normalise(model, images[order[:4]]))


def test_a_step_in_one_process_shuffles_the_keys_at_random():
    model, images = small(bn_groups=2), views()[1]
    groups = []
    model.encoder_k.register_forward_hook(lambda _module, inputs, _output: groups.append(inputs[0]))
    torch.manual_seed(3)
    model(images, images)
    assert sorted(torch.cat(groups).sum((1, 2, 3)).tolist()) == pytest.approx(
        sorted(normalise(model, images).sum((1, 2, 3)).tolist()), abs=1e-2
    )
    assert not torch.equal(torch.cat(groups), normalise(model, images))


def test_features_have_unit_norm_and_take_uint8_and_float_alike():
    model = small()
    image = views()[0]
    assert model.embed(image).shape == (8, 512)
    assert model.project(image).shape == (8, 16)
    torch.testing.assert_close(model.embed(image).norm(dim=1), torch.ones(8))
    torch.testing.assert_close(model.embed(image), model.embed(image.float()))


def test_a_file_that_is_no_moco_checkpoint_is_refused():
    with pytest.raises(
        InputError, match=r"raw.pth is a bare ResNet of unusual depth trunk; expected the state_dict entry"
    ):
        from_official({"conv1.weight": torch.zeros(1)}, "raw.pth")
    state = small().state_dict()
    del state["encoder_q.layer4.1.conv2.weight"]
    with pytest.raises(InputError, match=r"does not fit .*encoder_q.layer4.1.conv2.weight"):
        from_official(state)
