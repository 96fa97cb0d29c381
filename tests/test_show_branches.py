"""MGN's branches on a crop: stripes end where the model's end, and heads come in the descriptor's order."""

import io

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from lab.errors import InputError
from lab.finetune.mgn import HEAD_DIM as DIM_OF_MODEL
from lab.finetune.mgn import HEADS
from lab.show.branches import HATCHES, HEAD_DIM, branches_figure, stripe_ends

CROP = np.zeros((120, 60, 3), np.uint8)


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def filled(axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_fill()]


@pytest.mark.parametrize(("rows", "stripes"), [(24, 2), (24, 3), (4, 3), (8, 3), (5, 2), (3, 3), (7, 1)])
def test_stripes_end_where_those_of_the_model_do(rows, stripes):
    parts = torch.zeros(1, 1, rows, 2).tensor_split(stripes, dim=2)
    assert stripe_ends(rows, stripes) == np.cumsum([part.shape[2] for part in parts]).tolist()


def test_more_stripes_than_rows_are_refused():
    with pytest.raises(InputError, match=r"2 row\(s\) cannot be cut into 3 stripes; use taller images"):
        branches_figure(CROP, {"b1": (2, 1), "b2": (2, 1), "b3": (2, 1)}, HEADS)


def test_each_branch_shows_its_heads_beside_the_stripe_that_they_see():
    figure = branches_figure(CROP, {"b1": (4, 2), "b2": (4, 2), "b3": (4, 2)}, HEADS, "a title")
    *branches, _ = figure.axes
    assert [texts(axes) for axes in branches] == [["b1"], ["b2", "b21", "b22"], ["b3", "b31", "b32", "b33"]]
    assert [axes.get_title("left").splitlines()[0] for axes in branches] == [
        "branch b1: whole", "branch b2: whole + 2 stripes", "branch b3: whole + 3 stripes",
    ]  # fmt: skip
    assert branches[0].get_title("left").endswith("map of 4 x 2 places")
    middles = [text.get_position()[1] for text in branches[2].texts]
    assert middles == pytest.approx([60, 30, 75, 105]), "4 rows of 30 pixels are cut 2, 1, 1"
    assert figure.get_suptitle() == "a title"


def test_the_descriptor_has_the_models_order_and_the_branches_look():
    descriptor = branches_figure(CROP, dict.fromkeys(("b1", "b2", "b3"), (24, 8)), HEADS).axes[-1]
    assert HEAD_DIM == DIM_OF_MODEL
    assert texts(descriptor) == list(HEADS) == ["b1", "b2", "b3", "b21", "b22", "b31", "b32", "b33"]
    boxes = filled(descriptor)
    assert [box.get_x() for box in boxes] == [DIM_OF_MODEL * place for place in range(8)]
    looks = {head: (to_hex(box.get_facecolor()), box.get_hatch() or "") for head, box in zip(HEADS, boxes, strict=True)}
    assert looks["b2"] == looks["b21"] == looks["b22"]
    assert looks["b3"] == looks["b31"] == looks["b33"]
    assert [looks[branch][1] for branch in ("b1", "b2", "b3")] == list(HATCHES)
    assert len({looks[branch][0] for branch in ("b1", "b2", "b3")}) == 3
    assert "8 heads x 256 = 2,048" in descriptor.get_xlabel()


def test_it_can_be_drawn():
    figure = branches_figure(CROP, {"b1": (4, 2), "b2": (4, 2), "b3": (4, 2)}, HEADS)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    assert stream.getvalue()[1:4] == b"PNG"
