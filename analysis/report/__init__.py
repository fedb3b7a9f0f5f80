"""The report: one self-contained HTML page that shows a folder of runs, sample by sample."""
