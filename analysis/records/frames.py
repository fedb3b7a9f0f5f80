"""Frames of the videos of a prompt: their indices among its encoded images, and their names.

Knows nothing about models and pictures.
"""

from mustdrop.ledger import TokenLedger


def frames_of_videos(ledger: TokenLedger) -> list[range]:
    """Indices of the frames of each video among the encoded images of a prompt."""
    return [range(first, first + count) for first, count in ledger.videos]


def frame_names(encoded: int, shown: int | None) -> list[str]:
    """Names of the encoded frames of a video, such as ``3``, or ``5–6`` for two frames in one.

    Args:
        encoded: Number of encoded frames; a model may encode several frames as one.
        shown: Number of frames of the file that the model was given; None: not known.
    """
    size = -(-max(shown or encoded, encoded) // encoded)
    names = []
    for index in range(encoded):
        first, last = index * size + 1, min((index + 1) * size, max(shown or encoded, encoded))
        names.append(f"{first}–{last}" if last > first else str(first))
    return names
