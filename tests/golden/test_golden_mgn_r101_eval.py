"""mgn_r101_eval.npz: what the published MGN-R101 says about four images."""

import torch
from golden_models import FLOAT64, close, golden, in_float64

NAME = "mgn_r101_eval.npz"


def test_descriptor_in_float64(r101, images):
    with torch.no_grad():
        features = in_float64(r101).eval().features(images("mgn/eval", 4))
    descriptor = torch.cat(list(features.values()), dim=1)
    close(f"{NAME}, float64: descriptor", descriptor, golden(NAME)["descriptor_f64"], FLOAT64, asked=1e-4)


def test_features_and_descriptor(r101, images):
    expected = golden(NAME)
    r101.eval()
    with torch.no_grad():
        features = r101.features(images("mgn/eval", 4))
    for head, feature in features.items():
        close(f"{NAME}: feat_{head}", feature, expected[f"feat_{head}"], 1e-5, asked=1e-4)
    close(f"{NAME}: descriptor", torch.cat(list(features.values()), 1), expected["descriptor_f64"], 1e-5, asked=1e-4)
