"""A page to look into: one self-contained HTML file of a folder of runs, sample by sample."""
