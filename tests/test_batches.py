"""Batches of views: each follows from seed and step alone, whoever makes it."""

import tracemalloc
from itertools import islice

import numpy as np
import pytest
import torch
from pictures import write_person
from torch.utils.data import DataLoader

from lab.data.crops import Crops
from lab.data.jpeg import decode
from lab.data.readers import list_images
from lab.errors import InputError
from lab.pretrain.augment import Draws, Recipe, Views, finish
from lab.pretrain.batches import Request, ViewBatch, ViewBatches, requests

PLAIN = Recipe(grayscale=0, blur=0, erase=0)


class Numbered:
    """An image source in memory: crop i is all of the grey i, and every reading is noted."""

    def __init__(self, count: int, broken: int | None = None):
        self.count, self.broken, self.asked = count, broken, []

    def __len__(self) -> int:
        return self.count

    def name(self, number: int) -> str:
        return f"crop {number}"

    def read(self, number: int) -> bytes:
        self.asked.append(number)
        if number == self.broken:
            raise OSError("it is broken")
        return bytes([number])


def grey(record: bytes) -> np.ndarray:
    return np.full((20, 10, 3), record[0], np.uint8)


def numbered(count=40, broken=None, views=None, **settings) -> ViewBatches:
    crops = Crops(Numbered(count, broken), np.asarray, read=grey)
    return ViewBatches(crops, views or Views(8, 4, PLAIN), seed=5, **settings)


def shown(views: torch.Tensor) -> list[int]:
    """Which of the numbered crops these views show."""
    assert (views == views[:, :1, :1, :1]).all()
    return views[:, 0, 0, 0].tolist()


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    root = tmp_path_factory.mktemp("crops")
    for number in range(30):
        write_person(root / f"{number:03d}.jpg", number, 1, size=(16 + number % 5, 32))
    return Crops(list_images(root), np.asarray, read=decode)


def tensors(value) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else [tensor for part in value for tensor in tensors(part)]


def test_view_q_shows_the_batch_and_position_j_of_view_k_shows_crop_order_j():
    images = numbered()
    crops = np.random.default_rng(0).permutation(40)[:16]
    batch = images.__getitems__(Request(3, crops))
    assert shown(batch.view_q) == crops.tolist()
    assert sorted(batch.order.tolist()) == list(range(16))
    assert batch.order.tolist() != list(range(16))
    assert shown(batch.view_k) == crops[batch.order].tolist()
    assert sorted(images.crops.source.asked) == sorted(crops), "each crop is read once"
    assert (batch.view_q.shape, batch.view_q.dtype, batch.order.dtype) == ((16, 3, 8, 4), torch.uint8, torch.int64)


def test_without_shuffling_keys_keep_the_order_of_the_batch_and_look_the_same(people):
    request, views = Request(3, np.arange(16)), Views(32, 16)
    batch = ViewBatches(people, views, 5, shuffle=False).__getitems__(request)
    shuffled = ViewBatches(people, views, 5).__getitems__(request)
    assert batch.order.tolist() == list(range(16))
    assert batch.view_k[shuffled.order].equal(shuffled.view_k)
    fill = torch.zeros(1, 3, 1, 1)
    expected = finish(batch.view_k, batch.draws_k, fill)[shuffled.order]
    torch.testing.assert_close(finish(shuffled.view_k, shuffled.draws_k, fill), expected, atol=1e-3, rtol=0)


def test_the_two_views_of_a_crop_differ_and_so_do_the_views_of_two_steps_and_seeds(people):
    crops, views = np.arange(16), Views(32, 16)
    one = ViewBatches(people, views, 5, shuffle=False)
    first, second = (one.__getitems__(Request(step, crops)) for step in (0, 1))
    other = ViewBatches(people, views, 6, shuffle=False).__getitems__(Request(0, crops))
    looks = [first.view_q, first.view_k, second.view_q, second.view_k, other.view_q, other.view_k]
    for number, look in enumerate(looks):
        for another in looks[:number]:
            assert (look != another).flatten(1).any(1).all()
    drawn = [tuple(draws.mirrored.tolist()) for batch in (first, second, other) for draws in batch[2:4]]
    assert len(set(drawn)) == 6
    orders = [ViewBatches(people, views, seed).__getitems__(Request(step, crops)).order for seed, step in
              ((5, 0), (5, 1), (6, 0))]  # fmt: skip
    assert len({tuple(order.tolist()) for order in orders}) == 3


def test_what_processes_make_put_together_is_what_one_makes(people):
    request, views, fill = (
        Request(7, np.random.default_rng(0).permutation(30)[:24]),
        Views(32, 16),
        torch.ones(1, 3, 1, 1),
    )
    whole = ViewBatches(people, views, 5).__getitems__(request)
    parts = [ViewBatches(people, views, 5, rank=rank, world_size=3).__getitems__(request) for rank in range(3)]
    for view, draws in (("view_q", "draws_q"), ("view_k", "draws_k")):
        assert torch.cat([getattr(part, view) for part in parts]).equal(getattr(whole, view))
        finished = torch.cat([finish(getattr(part, view), getattr(part, draws), fill) for part in parts])
        expected = finish(getattr(whole, view), getattr(whole, draws), fill)
        torch.testing.assert_close(finished, expected, atol=1e-3, rtol=0)
    assert all(part.order.equal(whole.order) for part in parts)


def test_processes_read_only_the_crops_of_their_own_share():
    request, read = Request(0, np.arange(40)), []
    for rank in range(4):
        images = numbered(rank=rank, world_size=4)
        batch = images.__getitems__(request)
        assert shown(batch.view_q) == list(range(10 * rank, 10 * rank + 10))
        assert shown(batch.view_k) == batch.order[10 * rank : 10 * rank + 10].tolist()
        assert sorted(images.crops.source.asked) == sorted({*shown(batch.view_q), *shown(batch.view_k)})
        read += shown(batch.view_k)
    assert sorted(read) == list(range(40))


@pytest.mark.parametrize("first", [0, 2])
def test_workers_make_what_one_process_makes_and_a_run_can_begin_anywhere(people, first):
    images = ViewBatches(people, Views(32, 16), 5)

    def load(first_step, workers):
        loader = DataLoader(
            images, batch_sampler=requests(30, 8, 5, first_step, 5), num_workers=workers, collate_fn=lambda batch: batch
        )
        return list(loader)

    alone, helped = load(0, 0)[first:], load(first, 2)
    assert len(alone) == len(helped) == 5 - first
    for batch, other in zip(alone, helped, strict=True):
        assert isinstance(other, ViewBatch)
        assert isinstance(other.draws_k, Draws)
        pairs = list(zip(tensors(batch), tensors(other), strict=True))
        assert len(pairs) == 3 + 2 * len(Draws._fields)
        assert all(one.equal(two) for one, two in pairs)
        assert other.view_q.is_contiguous(memory_format=torch.channels_last)


def test_a_crop_that_cannot_be_read_is_replaced_by_the_next_in_both_views():
    images = numbered(broken=3)
    batch = images.__getitems__(Request(0, np.arange(8)))
    assert shown(batch.view_q) == [0, 1, 2, 4, 4, 5, 6, 7]
    assert shown(batch.view_k) == [shown(batch.view_q)[crop] for crop in batch.order.tolist()]
    assert list(images.crops.unreadable) == ["crop 3"]


def test_a_batch_that_processes_cannot_share_equally_is_explained():
    with pytest.raises(InputError, match="a batch of 10 cannot be shared equally by 4 processes; give --batch-size"):
        numbered(world_size=4).__getitems__(Request(0, np.arange(10)))


def test_every_epoch_has_every_crop_at_most_once_in_a_new_order():
    found = list(requests(43, 10, 1, 0, 12))
    assert [request.step for request in found] == list(range(12))
    epochs = np.stack([request.crops for request in found]).reshape(3, 40)
    for epoch in epochs:
        assert len(set(epoch.tolist())) == 40
        assert 0 <= epoch.min() <= epoch.max() < 43
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3
    assert len({tuple(set(range(43)) - set(epoch)) for epoch in epochs.tolist()}) > 1, "others are left out each time"
    assert not np.array_equal(next(requests(43, 10, 2, 0, 1)).crops, found[0].crops), "another seed, another order"


def test_every_crop_comes_at_every_place_equally_often():
    """Crop 0 within the epoch, over 4000 epochs of 8 crops: 500 times at each place."""
    orders = np.stack([request.crops for request in requests(8, 8, 0, 0, 4000)])
    places = np.bincount(np.nonzero(orders == 0)[1], minlength=8)
    assert np.abs(places - 500).max() < 4 * np.sqrt(500)


@pytest.mark.parametrize("first", [0, 1, 4, 5, 11, 12])
def test_going_on_at_a_step_gives_the_rest_of_the_requests(first):
    rest = list(requests(43, 10, 1, first, 12))
    expected = list(islice(requests(43, 10, 1, 0, 12), first, None))
    assert [request.step for request in rest] == [request.step for request in expected]
    for request, other in zip(rest, expected, strict=True):
        np.testing.assert_array_equal(request.crops, other.crops)


def test_millions_of_crops_need_little_memory():
    tracemalloc.start()
    try:
        request = next(requests(4_180_000, 2560, 0, 1000, 1001))
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert len(np.unique(request.crops)) == 2560
    assert request.crops.max() > 4_000_000
