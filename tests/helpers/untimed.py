"""Samples and records without their times, which differ from run to run."""

NEAR = 1e-4  # far above what a batch changes in a float32 log-probability, far below a new answer


class NearLogprobs(list):
    """Log-probabilities that equal others up to the rounding of another batch."""

    __hash__ = None

    def __eq__(self, other):
        return len(self) == len(other) and all(
            abs(ours - theirs) <= NEAR for ours, theirs in zip(self, other, strict=True)
        )

    def __ne__(self, other):
        return not self == other


def untimed(line):
    """A sample or a record without its seconds; near log-probabilities are equal."""
    return {
        name: _near(name, value) for name, value in line.items() if not name.endswith("seconds")
    }


def _near(name, value):
    if name == "logprobs":
        return NearLogprobs(value)
    if isinstance(value, dict):
        return {inner: _near(inner, entry) for inner, entry in value.items()}
    return [_near("", entry) for entry in value] if isinstance(value, list) else value
