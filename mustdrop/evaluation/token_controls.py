"""Controls beside a method: the same batch once more, with as many tokens but others.

Which arms there are, and what each has to have kept; knows neither model nor benchmark.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mustdrop.decode.scheduled import ScheduledCache
from mustdrop.dropper import TokenDropper
from mustdrop.fields import require_fields
from mustdrop.ledger import TokenLedger
from mustdrop.prefill.scheduled_grid import ScheduledGrid
from mustdrop.prefill.scheduled_random import ScheduledRandom

LayerCounts = tuple[tuple[int, ...], ...]  # a prompt, a layer


@dataclass(frozen=True, eq=False)
class ControlPass:
    """One control of one batch.

    Attributes:
        name: Of its kind, a field of :class:`Controls`.
        seed: Which draw; None where nothing is drawn.
        dropper: What it drops.
        entered: Vision tokens that have to enter each layer.
        resident: Vision tokens that have to be in each layer's cache while decoding.
    """

    name: str
    seed: int | None
    dropper: TokenDropper
    entered: LayerCounts
    resident: LayerCounts

    def check(self, ledgers: Sequence[TokenLedger]) -> None:
        """Make sure that the arm kept what it had to.

        Raises:
            RuntimeError: If some layer held another number of tokens.
        """
        for what, asked, found in (
            ("entered", self.entered, [ledger.vision_per_layer() for ledger in ledgers]),
            (
                "stayed in the cache of",
                self.resident,
                [one.resident_per_layer() for one in ledgers],
            ),
        ):
            for prompt, (wanted, came) in enumerate(zip(asked, found, strict=True)):
                if list(wanted) != came:
                    raise RuntimeError(
                        f"{self.name}, prompt {prompt}: {came} vision tokens {what} the layers, "
                        f"not {list(wanted)} as in the method beside it"
                    )


@dataclass(frozen=True)
class Controls:
    """Which controls run beside a method, each in a pass of its own over the same batch.

    Drops of all arms count positions by the method's own rules.

    Attributes:
        name: What tables call them.
        schedule_random: Seeds of random tokens on the method's own schedule, layer by layer.
        flat_random: Seeds of random tokens from the input on, as many as the method's executed
            average of that sample, rounded.
        flat_grid: Whether an even grid of as many runs, too.
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
        """The arms for a batch.

        Args:
            method: The method.
            ledgers: What it kept of each prompt.
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
