"""Pre-training without labels: MoCo v2 with LUPerson's changes (paper, section 4).

Read `augment` (two views of a crop), `batches` (what arrives at each step), `moco` (two encoders, a queue, a loss), and
`train`, the loop.
"""
