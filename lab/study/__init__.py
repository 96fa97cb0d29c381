"""The paper's claims in miniature: grids of ordinary runs, and what they say about each claim, with its error bar."""
