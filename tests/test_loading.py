"""Batches from a data set: in order, whole, with or without workers, and what is said when a worker fails or dies."""

import os
import signal
import subprocess
import sys
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lab.errors import InputError
from lab.training.health import explained
from lab.training.loading import load_batches, to_device

CPU = torch.device("cpu")


class Pair(NamedTuple):
    first: Tensor
    second: tuple[Tensor, Tensor]


class Numbers(Dataset):
    """Answers a request with tensors that hold it; refuses 7, and dies of 13."""

    def __getitems__(self, request: int) -> Pair:
        if request == 7:
            raise InputError("seven cannot be read; mend it")
        if request == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        value = torch.tensor([request])
        return Pair(value, (value + 1, value + 2))


@pytest.mark.parametrize("workers", [0, 2])
def test_every_request_is_answered_whole_and_in_order(workers):
    found = list(to_device(load_batches(Numbers(), iter(range(5)), workers, CPU), CPU))
    assert [(int(pair.first), *map(int, pair.second)) for pair in found] == [(n, n + 1, n + 2) for n in range(5)]
    assert all(type(pair) is Pair for pair in found)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_the_data_set_refuses_is_one_sentence(workers):
    with pytest.raises(InputError) as caught:
        list(load_batches(Numbers(), iter([1, 7]), workers, CPU))
    assert str(caught.value) == "seven cannot be read; mend it"


LEFT_OPEN = """
import torch
from torch.utils.data import Dataset
from lab.training.loading import load_batches

class Numbers(Dataset):
    def __getitems__(self, request):
        return torch.tensor([request])

batches = load_batches(Numbers(), iter(range(1000)), 2, torch.device("cpu"))
next(batches)
print(len(torch.multiprocessing.active_children()), flush=True)
"""


def test_a_program_ends_although_its_batches_were_not_read_to_the_end():
    done = subprocess.run([sys.executable, "-c", LEFT_OPEN], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


def test_a_worker_that_is_killed_is_explained():
    with pytest.raises(InputError, match=r"a process that reads crops died.*lower --num-workers"), explained("x"):
        list(load_batches(Numbers(), iter([1, 13]), 1, CPU))


def test_random_numbers_of_the_training_are_not_used_up():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    list(load_batches(Numbers(), iter([1]), 0, CPU))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_arrive_on_the_gpu_in_order(workers):
    gpu = torch.device("cuda")
    found = list(to_device(load_batches(Numbers(), iter(range(5)), workers, gpu), gpu))
    assert [(int(pair.first), *map(int, pair.second)) for pair in found] == [(n, n + 1, n + 2) for n in range(5)]
    assert found[0].second[1].device.type == "cuda"
