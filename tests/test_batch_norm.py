"""Groups of a batch have statistics of their own, and only the first one's are remembered."""

import torch
from torch import nn

from lab.batch_norm import in_groups
from lab.finetune.mgn import MGN
from lab.finetune.train import grouped_features, set_frozen


def test_each_part_is_normalised_alone_and_the_first_is_remembered():
    norm = nn.BatchNorm1d(1, momentum=0.5)
    first, second = torch.tensor([[0.0], [2.0]]), torch.tensor([[10.0], [30.0]])
    one, two = in_groups(norm, norm, [first, second])
    for part in (one, two):
        torch.testing.assert_close(part, torch.tensor([[-1.0], [1.0]]), atol=1e-4, rtol=0)
    assert norm.running_mean.item() == 0.5  # half of the old 0 and half of the first part's 1
    assert norm.num_batches_tracked == 1
    assert norm.track_running_stats


def test_a_part_that_fails_leaves_the_model_learning():
    norm = nn.BatchNorm1d(1)

    def forward(part):
        if len(part) == 1:
            raise ValueError("stop")
        return norm(part)

    try:
        in_groups(norm, forward, [torch.ones(2, 1), torch.ones(1, 1)])
    except ValueError:
        assert norm.track_running_stats


def test_images_go_to_the_groups_in_turn_and_come_back_in_order():
    """Image i to group i % 2; in eval mode, without batch statistics, grouping changes nothing."""
    torch.manual_seed(0)
    model = MGN(3, 18, last_stride=2)
    images = torch.randint(0, 256, (6, 3, 96, 48), dtype=torch.uint8)
    with torch.no_grad():
        model.eval()
        whole, grouped = model.features(images), grouped_features(model, images, 2)
        for head, feature in whole.items():
            torch.testing.assert_close(grouped[head], feature, atol=1e-4, rtol=1e-4)
        set_frozen(model, False)
        grouped = grouped_features(model, images, 2)
        alone = model.features(images[1::2])  # the second group
        for head, feature in alone.items():
            torch.testing.assert_close(grouped[head][1::2], feature, atol=1e-4, rtol=1e-4)
