"""What went wrong, as a sentence for whoever typed the command. Knows no run."""

from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

BAD_INPUT = 2
BUSY = 75  # as sysexits.h has it: a temporary failure, try again later
KNOWN = (ValueError, TypeError, OSError, OmegaConfBaseException, HydraException)


def message(error: BaseException) -> str:
    """What went wrong, in a sentence or two, and where in the config."""
    if isinstance(error, MissingMandatoryValue):
        return (
            f"{error.full_key} has no value: give it, choose a budget with one in conf/tuned/, or "
            "find it with experiments/calibrate.py"
        )
    if isinstance(error, InstantiationException):
        where = str(error).rpartition("full_key: ")[2].strip()
        return f"{where}: {error.__cause__ or error}"
    if isinstance(error, OmegaConfBaseException):
        # what a resolver raised stands in the first line, behind what OmegaConf says of it
        reason = str(error).splitlines()[0].rpartition("resolving interpolation: ")[2]
        return f"{error.full_key}: {reason}"
    return str(error)
