"""Data that several tests share: a small folder of people in Market-1501 layout, coloured by identity."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")

import pytest
from pictures import write_person


@pytest.fixture(scope="session")
def market(tmp_path_factory) -> Path:
    """8 training people x 6 crops, 5 other people to find under 3 cameras, 2 distractors and 1 junk crop."""
    root = tmp_path_factory.mktemp("market")
    for pid in range(2, 10):
        for number in range(6):
            camid = 1 + number % 3
            write_person(root / "bounding_box_train" / f"{pid:04d}_c{camid}s1_{number:06d}_01.jpg", pid, camid, number)
    for pid in range(20, 25):
        for camid in (1, 2, 3):
            write_person(root / "query" / f"{pid:04d}_c{camid}s1_000001_00.jpg", pid, camid)
            write_person(root / "bounding_box_test" / f"{pid:04d}_c{camid}s1_000002_01.jpg", pid, camid, 1)
    for number in range(2):
        write_person(root / "bounding_box_test" / f"0000_c1s1_{number:06d}_01.jpg", 900 + number, 1)
    write_person(root / "bounding_box_test" / "-1_c2s1_000001_01.jpg", 990, 2)
    return root
