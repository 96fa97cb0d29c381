"""Fine-tuning with labels: MGN on a re-ID data set (paper, section 5)."""
