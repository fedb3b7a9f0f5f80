"""Runs on disk as the analysis reads them: the one room that opens them."""
