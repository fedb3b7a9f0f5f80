"""History of a run for a tracker: one row per sample, with its values and the means so far.

Computed from the lines of ``samples.jsonl`` only; knows no tracker and no file.
"""

from collections.abc import Mapping
from typing import Any

COUNTS = ("executed_average", "resident", "paper_average")
SUMMED = (
    "encoder_macs", "prefill_macs", "vanilla_encoder_macs", "vanilla_macs", "new_tokens", "seconds",
)  # fmt: skip


class History:
    """Turns the samples of one run, in order, into rows.

    Args:
        metric: Name of the benchmark's score.
    """

    def __init__(self, metric: str) -> None:
        self.metric, self.n = metric, 0
        self._seen: dict[str, tuple[int, float]] = {}
        self._sums = dict.fromkeys(SUMMED, 0.0)

    def row(self, sample: Mapping[str, Any]) -> dict[str, float | int]:
        """Row of the next sample.

        Returns:
            ``sample/*``: values of the sample. ``mean/*``: means over all samples so far that have
            the value.
        """
        self.n += 1
        values = {self.metric: sample["scores"].get(self.metric)}
        values |= {name: sample["counts"].get(name) for name in COUNTS}
        values |= {name: sample.get(name) for name in ("target_recall", "kv_bytes", "seconds")}
        for name, value in values.items():
            if value is not None:
                n, total = self._seen.get(name, (0, 0.0))
                self._seen[name] = n + 1, total + value
        for name in SUMMED:
            self._sums[name] += sample[name]
        return {
            "n": self.n,
            "doc_id": sample["doc_id"],
            **{f"sample/{name}": value for name, value in values.items() if value is not None},
            **{f"mean/{name}": total / n for name, (n, total) in self._seen.items()},
            **self._rates(),
        }

    def _rates(self) -> dict[str, float]:
        sums = self._sums
        whole = sums["vanilla_encoder_macs"] + sums["vanilla_macs"]
        rates = {}
        if whole:
            rates["mean/flops_ratio"] = (sums["encoder_macs"] + sums["prefill_macs"]) / whole
        if sums["seconds"]:
            rates["tokens_per_second"] = sums["new_tokens"] / sums["seconds"]
            rates["samples_per_second"] = self.n / sums["seconds"]
        return rates
