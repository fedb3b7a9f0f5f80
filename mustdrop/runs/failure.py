"""What a run's status says of an error, and of the job that the process is. Knows no run."""

import os
import traceback


def failure(error: BaseException) -> dict[str, str]:
    """The entries of a run that failed."""
    return {
        "state": "failed",
        "error": f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
    }


def slurm_job() -> dict[str, str]:
    """The job that this process is, where it is one."""
    names = ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID", "RESTART_COUNT", "JOB_PARTITION")
    told = {name.lower(): os.environ.get(f"SLURM_{name}") for name in names}
    return {name: value for name, value in told.items() if value is not None}
