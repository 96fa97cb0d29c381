"""mgn_r101_eval.npz: what the published MGN-R101 says about four images."""

import torch
from golden_models import close, golden

NAME = "mgn_r101_eval.npz"


def test_features_and_descriptor(r101, images):
    expected = golden(NAME)
    r101.eval()
    with torch.no_grad():
        features = r101.features(images("mgn/eval", 4))
    for head, feature in features.items():
        close(f"{NAME}: feat_{head}", feature, expected[f"feat_{head}"], 1e-5, asked=1e-4)
    close(f"{NAME}: descriptor", torch.cat(list(features.values()), 1), expected["descriptor_f64"], 1e-5, asked=1e-4)
