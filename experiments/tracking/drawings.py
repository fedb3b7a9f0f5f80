"""Pictures for a tracker of what was dropped: overlays of images, film strips of videos.

Overlays and film strips show images and frames as the encoder saw them if the trace has them
(``mustdrop trace``). Else an overlay is drawn on the document's image, if that has the shape of the
grid, and otherwise on a plain one; frames are plain. An image of another shape was cropped, padded
or squeezed before the encoder saw it. Knows no tracker.
"""

import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from experiments.tracking.documents import RunDocuments
from mustdrop.runs.folder import trace_path
from mustdrop.runs.trace import Trace
from mustdrop.tracking.service import Table

OVERLAYS, FILMS = "overlays", "film_strips"  # names of the tables
PLAIN = 16  # pixels of a cell of a plain image
COLUMNS = {
    OVERLAYS: ("doc_id", "question", "overlay"), FILMS: ("doc_id", "question", "film_strip")
}  # fmt: skip


def drawn_samples(
    folder: Path,
    config: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]],
    documents: RunDocuments,
    most: int,
) -> dict[str, Table]:
    """Tables of pictures of the first ``most`` samples whose ledger was kept, by name."""
    rows: dict[str, list[list[Any]]] = {name: [] for name in COLUMNS}
    traced = [line for line in samples if trace_path(folder, line["doc_id"]).exists()][:most]
    for line in traced:
        try:
            trace = Trace.load(trace_path(folder, line["doc_id"]))
            name = FILMS if trace.ledger.videos else OVERLAYS
            draw = films if trace.ledger.videos else overlays
            pictures = draw(folder, config, line, trace, documents)
        except Exception:  # the tracker's boundary: a failed picture must not prevent the others
            traceback.print_exc()
            continue
        rows[name] += [[line["doc_id"], line["question"], path] for path in pictures]
    return {name: (COLUMNS[name], made) for name, made in rows.items() if made}


def overlays(
    folder: Path,
    config: Mapping[str, Any],
    line: Mapping[str, Any],
    trace: Trace,
    documents: RunDocuments,
) -> list[Path]:
    """Draw what was dropped of the first image of a sample; nothing without its picture."""
    from analysis.figures.overlays import draw

    doc = line["doc_id"]
    image = documents.picture(doc)
    if image is None:
        return []
    return [
        draw(
            seen(trace, image),
            trace.ledger,
            folder / OVERLAYS / f"{doc}.png",
            title=_title(config),
            question=line["question"],
            answer=line["answer"],
            target=str(line["target"]),
            region=documents.region(doc),
        )
    ]


def seen(trace: Trace, image: Image.Image) -> Image.Image:
    """First image of a prompt as the encoder saw it, or a plain one if that is unknown."""
    if trace.pictures:
        return trace.picture(0)
    rows, columns = trace.ledger.grids[0]
    shape = (image.width / columns) / (image.height / rows)
    rounding = 1 / min(rows, columns)  # a side of the grid is a whole number of cells
    if abs(shape - 1) <= rounding:
        return image
    return Image.new("RGB", (PLAIN * columns, PLAIN * rows), "lightgrey")


def films(
    folder: Path,
    config: Mapping[str, Any],
    line: Mapping[str, Any],
    trace: Trace,
    documents: RunDocuments,
) -> list[Path]:
    """Draw a film strip of each video of a sample."""
    from analysis.figures.film import draw

    pictures = [trace.picture(index) for index in range(len(trace.pictures))]
    return [
        draw(
            trace.ledger,
            pictures,
            folder / OVERLAYS / f"{line['doc_id']}_video{number + 1}.png",
            title=_title(config),
            question=line["question"],
            answer=line["answer"],
            target=str(line["target"]),
            number=number,
            shown=documents.frames,
        )
        for number in range(len(trace.ledger.videos))
    ]


def _title(config: Mapping[str, Any]) -> str:
    """Method and budget."""
    budget = config["budget"]["name"] if config["budget"] else "none"
    return f"{config['method']['name']} at {budget}"
