"""Data: what a re-ID data set is, how it lies on disk, how a crop becomes a tensor."""

from lab.data.readers import load
from lab.data.splits import ReidDataset, Split

__all__ = ["ReidDataset", "Split", "load"]
