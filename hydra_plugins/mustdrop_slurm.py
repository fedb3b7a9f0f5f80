"""Launcher of submitit that waits for the whole array if SLURM loses a task."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.errors import CompactHydraException
from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
from omegaconf import OmegaConf

from experiments.cluster.site_file import for_submitit


class ArrayLauncher(SlurmLauncher):
    """Launches cells as one SLURM array; results are read from the cells' folders."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        # Imported here, because Hydra imports every plugin at the start of every program.
        from submitit import SlurmJob
        from submitit.core.utils import UncompletedJobError

        if shutil.which("srun") is None:
            raise CompactHydraException("there is no SLURM on this machine: use a login node")
        watcher = SlurmJob.watcher
        before = set(watcher._registered)
        try:
            return super().launch(job_overrides, initial_job_idx)
        except UncompletedJobError as error:
            tasks = set(watcher._registered) - before
            if not tasks:
                raise CompactHydraException(f"sbatch refuses: {error}") from error
            # The array itself is registered too, and has no state: 7 in addition to 7_0 and 7_1.
            tasks = {task for task in tasks if "_" in task} or tasks
            # A task was killed, cancelled or out of memory: it has no result, the others run on.
            print(f"{error}\nwaiting for the other tasks of the array", flush=True)
            # Forced, because submitit polls less and less often by default.
            while not all(watcher.is_done(task, mode="force") for task in tasks):
                time.sleep(5)
            raise CompactHydraException("SLURM lost a task; the same command goes on") from error


@dataclass
class ArrayConf(SlurmQueueConf):
    """Options of submitit's SLURM launcher."""

    _target_: str = "hydra_plugins.mustdrop_slurm.ArrayLauncher"


# Resolver of ``${site:...}`` in conf/launcher/slurm.yaml.
OmegaConf.register_new_resolver("site", for_submitit, replace=True)
ConfigStore.instance().store(group="hydra/launcher", name="slurm_array", node=ArrayConf())
