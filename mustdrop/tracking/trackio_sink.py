"""trackio as a tracker: a dashboard on this machine, without account or network.

A run is sent again from its first sample each time, which costs little on one machine; the tables
are part of its last row. Knows neither samples nor ledgers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, final

from PIL.Image import Image

from mustdrop.tracking.service import Card, Closing, Tracker

if TYPE_CHECKING:
    import trackio  # pyright: ignore[reportMissingImports]


@final
@dataclass(frozen=True)
class Trackio(Tracker):
    """Sends runs to trackio; ``trackio show --project <project>`` shows them."""

    name: ClassVar[str] = "trackio"
    extra: ClassVar[str] = "trackio"

    def open(self, card: Card, live: bool) -> "TrackioSink":
        """See :class:`mustdrop.tracking.service.Tracker`."""
        import trackio  # pyright: ignore[reportMissingImports]

        try:
            known = list(trackio.Api().runs(self.project))
        except ValueError:  # the project does not exist before its first run
            known = []
        for run in known:
            if run.name == card.id:
                run.delete()
        run = trackio.init(
            project=self.project,
            name=card.id,
            group=card.group,
            config=dict(card.config),
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return TrackioSink(run, self.project)


class TrackioSink:
    """A run at trackio."""

    def __init__(self, run: "trackio.Run", project: str) -> None:
        self.run, self.first = run, 0
        self.entries: dict[str, Any] = {
            "id": run.name, "mode": "local", "where": f"trackio show --project {project}",
        }  # fmt: skip
        self._last: tuple[int, dict[str, Any]] = (0, {})

    def log(self, step: int, row: Mapping[str, float | int]) -> None:
        # hold the last row back for summary and tables: a further row would count as a sample
        if self._last[1]:
            self.run.log(self._last[1], step=self._last[0])
        self._last = step, dict(row)

    def close(self, closing: Closing) -> None:
        import trackio  # pyright: ignore[reportMissingImports]

        step, row = self._last
        row |= {"state": closing.state, **closing.summary}
        for name, (columns, rows) in closing.tables.items():
            data = [[_cell(value) for value in values] for values in rows]
            row[name] = trackio.Table(columns=list(columns), data=data)
        self.run.log(row, step=step)
        self.run.finish()


def _cell(value: Any) -> Any:
    """Value of a table cell, with images as trackio's type."""
    import trackio  # pyright: ignore[reportMissingImports]

    if isinstance(value, Path):
        return trackio.Image(str(value))
    return trackio.Image(value) if isinstance(value, Image) else value
