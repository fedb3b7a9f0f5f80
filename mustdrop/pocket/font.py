"""A bitmap font of ten digits and ten letters. Knows nothing about scenes.

The bitmaps are part of this file, so that images do not depend on a font file or its renderer.
"""

import numpy as np

DIGITS = "0123456789"
LETTERS = "ACEFHKLPTX"
CHARACTERS = DIGITS + LETTERS

_DIGITS = """
.###. ..#.. .###. ####. ...#. ##### ..##. ##### .###. .###.
#...# .##.. #...# ....# ..##. #.... .#... ....# #...# #...#
#..## ..#.. ....# ....# .#.#. ####. #.... ...#. #...# #...#
#.#.# ..#.. ..##. .###. #..#. ....# ####. ..#.. .###. .####
##..# ..#.. .#... ....# ##### ....# #...# .#... #...# ....#
#...# ..#.. #.... ....# ...#. #...# #...# .#... #...# ...#.
.###. .###. ##### ####. ...#. .###. .###. .#... .###. .##..
"""
_LETTERS = """
.###. .###. ##### ##### #...# #...# #.... ####. ##### #...#
#...# #...# #.... #.... #...# #..#. #.... #...# ..#.. #...#
#...# #.... #.... #.... #...# #.#.. #.... #...# ..#.. .#.#.
##### #.... ####. ####. ##### ##... #.... ####. ..#.. ..#..
#...# #.... #.... #.... #...# #.#.. #.... #.... ..#.. .#.#.
#...# #...# #.... #.... #...# #..#. #.... #.... ..#.. #...#
#...# .###. ##### #.... #...# #...# ##### #.... ..#.. #...#
"""
_PIXELS_PER_DOT = 2


def _glyphs(characters: str, sheet: str) -> dict[str, np.ndarray]:
    rows = np.array([[list(glyph) for glyph in line.split()] for line in sheet.split("\n") if line])
    dots = rows.transpose(1, 0, 2) == "#"  # [rows, characters, columns] -> [characters, ...]
    square = np.ones((_PIXELS_PER_DOT, _PIXELS_PER_DOT), bool)
    glyphs = (np.kron(glyph, square) for glyph in dots)
    return dict(zip(characters, glyphs, strict=True))


GLYPHS = _glyphs(DIGITS, _DIGITS) | _glyphs(LETTERS, _LETTERS)
GLYPH_HEIGHT, GLYPH_WIDTH = GLYPHS["0"].shape
