"""UniformFrames: keep fewer whole frames of a video (a control that reads no content)."""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from mustdrop.fixed_counts import TopK
from mustdrop.frames import even_frames, video_shares
from mustdrop.prefill.uniform_grid import even_score
from mustdrop.strategy import PrefillView


@final
@dataclass(frozen=True)
class UniformFrames(TopK):
    """Keep whole frames, evenly spaced in time from the first to the last one.

    A video that keeps k tokens, with n cells per frame, keeps ceil(k / n) frames. The last of them
    has an even grid of the cells that remain, so that the count is met. Slots that show no cell
    (a frame's [CLS]) are kept last.

    Source: control, ours. It is the same number of tokens, spent on fewer frames.

    Attributes:
        keep: Number of vision tokens kept per prompt, shared by its videos.
        layer: Layer after which tokens are dropped; -1: before the language model.
    """

    videos_only = True

    def score(self, view: PrefillView) -> Float[Tensor, " vision"]:
        counts = []
        for frames, rows, columns, keep in video_shares(view, self.kept(view)):
            cells = rows * columns
            of_frame = [0] * frames
            for frame in even_frames(frames, min(-(-keep // cells), frames)):
                of_frame[frame] = min(keep, cells)
                keep -= of_frame[frame]
            counts += of_frame
        return even_score(view, counts)
