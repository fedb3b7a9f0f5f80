"""Samples and records without their times, which differ from run to run."""


def untimed(line):
    """A sample or a record without its seconds."""
    return {name: value for name, value in line.items() if not name.endswith("seconds")}
