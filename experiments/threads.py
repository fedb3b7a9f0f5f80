"""Number of CPU threads of a run, so that runs started together do not compete for the same CPUs.

- One run: all CPUs, as torch decides.
- ``launcher=joblib``: joblib divides the CPUs among its processes before they import torch.
- torchrun: it sets one thread for each rank; the CPUs are divided among the ranks here.

OMP_NUM_THREADS of the user takes precedence over all of them, and ``threads=`` over that.
"""

import os

from mustdrop.runs.timing import available_cpus

LIMIT = "OMP_NUM_THREADS"
TORCHRUN = "TORCHELASTIC_RUN_ID"  # torchrun sets it in each process that it starts
TORCHRUN_LIMIT = "1"  # what torchrun sets the limit to, unless the user has set it


def set_threads(threads: int | None) -> None:
    """Set the number of torch's threads in this process.

    Args:
        threads: Number of threads; None for the default, see the module.
    """
    chosen = threads or rank_threads()
    if chosen is not None:
        import torch

        torch.set_num_threads(chosen)


def rank_threads() -> int | None:
    """Number of threads of a rank that torchrun started; None if torch's own default is right."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    chosen_by_torchrun = TORCHRUN in os.environ and os.environ.get(LIMIT) == TORCHRUN_LIMIT
    if ranks == 1 or (LIMIT in os.environ and not chosen_by_torchrun):
        return None
    return max(1, available_cpus() // ranks)
