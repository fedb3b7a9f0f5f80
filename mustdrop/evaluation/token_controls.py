"""Token controls of a method: more passes over the same batch, with as many but other tokens.

Lists the passes and the token counts that each must keep. Knows no models and no benchmarks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mustdrop.decode.scheduled import ScheduledCache
from mustdrop.dropper import TokenDropper
from mustdrop.fields import require_fields
from mustdrop.ledger import TokenLedger
from mustdrop.prefill.scheduled_grid import ScheduledGrid
from mustdrop.prefill.scheduled_random import ScheduledRandom

LayerCounts = tuple[tuple[int, ...], ...]  # [prompt][layer]


@dataclass(frozen=True, eq=False)
class ControlPass:
    """One pass of a control over one batch.

    Attributes:
        name: Name of the control, a field of :class:`Controls`.
        seed: Seed of the random tokens; None if nothing is random.
        dropper: Dropper of the pass.
        entered: Number of vision tokens that must enter each layer, per prompt.
        resident: Number of vision tokens that must be in each layer's cache while decoding, per
            prompt.
    """

    name: str
    seed: int | None
    dropper: TokenDropper
    entered: LayerCounts
    resident: LayerCounts

    def check(self, ledgers: Sequence[TokenLedger]) -> None:
        """Check that the pass kept the required number of tokens.

        Raises:
            RuntimeError: If a layer held another number of tokens.
        """
        entered = [ledger.vision_per_layer() for ledger in ledgers]
        resident = [ledger.resident_per_layer() for ledger in ledgers]
        for verb, required, counted in (
            ("entered", self.entered, entered),
            ("stayed in the cache of", self.resident, resident),
        ):
            for prompt, (expected, got) in enumerate(zip(required, counted, strict=True)):
                if list(expected) != got:
                    raise RuntimeError(
                        f"{self.name}, prompt {prompt}: {got} vision tokens {verb} the layers, "
                        f"but the method had {list(expected)}"
                    )


@dataclass(frozen=True)
class Controls:
    """Set of token controls that run with a method, in one pass each over the same batch.

    All controls use the method's rules for positions after a drop.

    Attributes:
        name: Name of the set in tables.
        schedule_random: Seeds for random tokens with the method's schedule: as many in each layer.
        flat_random: Seeds for random tokens dropped at the input; their number is the method's
            executed average of the sample, rounded.
        flat_grid: Whether to run an even grid of the same number of tokens, too.
    """

    name: str
    schedule_random: Sequence[int]
    flat_random: Sequence[int]
    flat_grid: bool

    def __post_init__(self) -> None:
        require_fields(self)
        for field in ("schedule_random", "flat_random"):
            seeds = getattr(self, field)
            if len({*seeds}) < len(seeds):
                raise ValueError(f"{field} must be a list of different seeds, got {list(seeds)}")

    def passes(self, method: TokenDropper, ledgers: Sequence[TokenLedger]) -> Iterator[ControlPass]:
        """Control passes for a batch.

        Args:
            method: Dropper of the method.
            ledgers: Ledgers of the method's pass, one per prompt.
        """
        entered = tuple(tuple(ledger.vision_per_layer()) for ledger in ledgers)
        resident = tuple(tuple(ledger.resident_per_layer()) for ledger in ledgers)
        bare = replace(method, vision=None, key_tokens=None, decode=None, log_scores=False)
        for seed in self.schedule_random:
            cut = None if method.decode is None else ScheduledCache(resident, seed)
            drawn = replace(bare, prefill=ScheduledRandom(entered, seed), decode=cut)
            yield ControlPass("schedule_random", seed, drawn, entered, resident)
        keeps = tuple(round(sum(counts) / len(counts)) for counts in entered)
        flat = tuple((keep,) * len(counts) for keep, counts in zip(keeps, entered, strict=True))
        for seed in self.flat_random:
            drawn = replace(bare, prefill=ScheduledRandom(flat, seed))
            yield ControlPass("flat_random", seed, drawn, flat, flat)
        if self.flat_grid:
            yield ControlPass(
                "flat_grid", None, replace(bare, prefill=ScheduledGrid(keeps)), flat, flat
            )
