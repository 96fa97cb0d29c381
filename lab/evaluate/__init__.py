"""Evaluation: features, ranking, CMC, mAP, mINP, re-ranking and attention maps."""
