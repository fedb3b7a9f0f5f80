"""``mustdrop doctor``: checks of a model on a benchmark, made before large runs."""
