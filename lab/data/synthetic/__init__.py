"""Synthetic people: a deterministic renderer of walking people in six places, and a Market-1501 style data set of them.

In reading order: `people` (who they are), `figure` (how they walk), `draw` (how a limb is painted), `scenes` and
`cameras` (six places, six sensors), `render` (one crop), `dataset` (a folder of crops).
"""

from lab.data.synthetic.dataset import SyntheticConfig, load_ground_truth, read_marker, write
from lab.data.synthetic.render import SyntheticCrop, render

__all__ = ["SyntheticConfig", "SyntheticCrop", "load_ground_truth", "read_marker", "render", "write"]
