"""Pictures for a tracker: on which image an overlay is drawn."""

from types import SimpleNamespace

import pytest
from PIL import Image

from experiments.tracking.drawings import PLAIN, seen


def trace(grid, *pictures):
    ledger = SimpleNamespace(grids=[grid])
    return SimpleNamespace(ledger=ledger, pictures=pictures, picture=lambda index: pictures[index])


@pytest.mark.parametrize(
    ("grid", "size", "drawn"),
    [
        ((24, 24), (336, 336), True),
        ((24, 24), (340, 336), True),  # within half a cell
        ((24, 24), (640, 480), False),  # cropped, padded or squeezed: the trace does not say which
        ((14, 19), (533, 400), True),  # a grid as the image is
        ((24, 24), (480, 640), False),
    ],
)
def test_an_image_of_another_shape_than_its_grid_is_not_drawn_on(grid, size, drawn):
    image = Image.new("RGB", size, "red")
    shown = seen(trace(grid), image)
    assert (shown is image) == drawn
    if not drawn:
        assert shown.size == (PLAIN * grid[1], PLAIN * grid[0])


def test_the_image_that_the_encoder_saw_is_drawn_on_where_the_trace_has_it():
    encoded = Image.new("RGB", (336, 336))
    assert seen(trace((24, 24), encoded), Image.new("RGB", (640, 480))) is encoded
