"""Pre-training without labels: MoCo v2 with LUPerson's changes (paper, section 4)."""
