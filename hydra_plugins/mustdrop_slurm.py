"""submitit's launcher, with patience: it waits for the whole array where SLURM loses a task."""

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
    """What became of the cells is read from their folders, not from what it brings back."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        # Hydra looks into every plugin at every start, of any program: what is heavy waits
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
            # an array's own number is registered too, and has no state: 7 beside 7_0 and 7_1
            tasks = {task for task in tasks if "_" in task} or tasks
            # killed, cancelled or out of memory: it left no result, and the others still run
            print(f"{error}\nwaiting for the other tasks of the array", flush=True)
            # asked now: left to itself it asks ever more rarely
            while not all(watcher.is_done(task, mode="force") for task in tasks):
                time.sleep(5)
            raise CompactHydraException("SLURM lost a task; the same command goes on") from error


@dataclass
class ArrayConf(SlurmQueueConf):
    """submitit's own options."""

    _target_: str = "hydra_plugins.mustdrop_slurm.ArrayLauncher"


# what ``${site:...}`` in conf/launcher/slurm.yaml stands for
OmegaConf.register_new_resolver("site", for_submitit, replace=True)
ConfigStore.instance().store(group="hydra/launcher", name="slurm_array", node=ArrayConf())
