"""A SLURM of one node on loopback, for tests: real daemons in a folder, no systemd, no root needed.

It differs from a real cluster in this: jobs run as whoever started it, nothing is confined, nothing
is accounted. submitit reads states from ``sacct``, which needs an accounting database: a stand-in
answers from ``scontrol`` here. Knows nothing about mustdrop.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

SBIN = "/usr/sbin:/sbin"  # where Debian keeps the daemons, and no user's PATH looks
PROGRAMS = (
    "munged", "munge", "slurmctld", "slurmd", "slurmstepd", "sbatch", "srun", "scontrol", "scancel",
)  # fmt: skip

# Jobs of `urgent` preempt those of `work`, which are warned and go back to the queue.
# A requeued job waits until its credential has expired: cred_expire, 120 seconds as a rule.
CONF = """
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CredType=cred/munge
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
PlugStackConfig={folder}/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,requeue_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
KillWait=3
MinJobAge=86400
ReturnToService=2
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8192 State=UNKNOWN
PartitionName=work Nodes={host} Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=5
PartitionName=urgent Nodes={host} PriorityTier=10 PreemptMode=OFF
"""

SACCT = """#!{python}
# sacct where nothing is accounted: every job, in the columns that were asked for
import re, subprocess, sys
columns = sys.argv[sys.argv.index("-o") + 1].split(",")
told = subprocess.run(["scontrol", "-o", "show", "job"], capture_output=True, text=True).stdout
print("|".join(columns))
for line in told.splitlines():
    job = dict(re.findall(r"(\\w+)=(\\S*)", line))
    if "JobId" not in job:
        continue
    if "ArrayJobId" in job:
        task = job["ArrayTaskId"]
        task = task if task.isdigit() else f"[{{task}}]"
        job["JobId"] = f"{{job['ArrayJobId']}}_{{task}}"
    known = {{"JobID": job["JobId"], "State": job["JobState"], "NodeList": job.get("NodeList", "")}}
    print("|".join(known[column] for column in columns))
"""


def missing() -> str | None:
    """What this machine lacks; None where a SLURM can be started."""
    path = f"{os.environ['PATH']}:{SBIN}"
    lacking = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if lacking:
        return f"no {', '.join(lacking)} (Debian: apt-get install slurm-wlm slurm-client munge)"
    host = socket.gethostname().partition(".")[0]
    try:
        address = socket.gethostbyname(host)
    except OSError:
        address = "nothing"
    if address != "127.0.0.1":
        return f"the host name {host} resolves to {address}, and SLURM would not stay on 127.0.0.1"
    return None


@contextmanager
def started(folder: Path, cpus: int = 2) -> Iterator[dict[str, str]]:
    """A running SLURM; every job and every daemon ends with the context, whatever happened in it.

    Args:
        folder: An empty one with a short path (sockets live in it).
        cpus: How many the node says it has; it may have fewer.

    Yields:
        The environment in which sbatch and the others, and jobs, find it.

    Raises:
        RuntimeError: If a daemon does not come up.
    """
    config = folder / "slurm.conf"
    path = f"{folder}:{os.environ['PATH']}:{SBIN}"
    env = {**os.environ, "PATH": path, "SLURM_CONF": str(config)}
    ports = [_free_port() for _ in range(2)]
    host = socket.gethostname().partition(".")[0]
    user = subprocess.check_output(["id", "-un"], text=True).strip()
    config.write_text(CONF.format(host=host, user=user, ports=ports, folder=folder, cpus=cpus))
    for name in ("state", "spool"):
        (folder / name).mkdir(mode=0o700)
    (folder / "plugstack.conf").touch()
    (folder / "sacct").write_text(SACCT.format(python=sys.executable))
    (folder / "sacct").chmod(0o755)
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o400)
    daemons = [
        # --force: a folder below /tmp is nobody's own
        ["munged", "--force", "--foreground", f"--key-file={folder}/munge.key",
         f"--socket={folder}/munge.sock", f"--pid-file={folder}/munged.pid",
         f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"],
        ["slurmctld", "-D", "-f", str(config)],
        ["slurmd", "-D", "-f", str(config)],
    ]  # fmt: skip
    ready = [
        ["munge", "--no-input", f"--socket={folder}/munge.sock"],
        ["scontrol", "ping"],
        ["sh", "-c", "sinfo -h -o %T | grep -qE 'idle|mixed|allocated'"],
    ]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for daemon, question in zip(daemons, ready, strict=True):
            with (folder / f"{daemon[0]}.out").open("wb") as out:
                running.append(
                    subprocess.Popen(
                        daemon, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out
                    )
                )
            _await(daemon[0], question, running[-1], env, folder)
        yield env
    finally:
        _stop(running, env, user)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _await(
    name: str,
    question: list[str],
    daemon: "subprocess.Popen[bytes]",
    env: Mapping[str, str],
    folder: Path,
) -> None:
    deadline = time.monotonic() + 60
    while subprocess.run(question, env=env, capture_output=True).returncode != 0:
        if daemon.poll() is not None or time.monotonic() > deadline:
            logs = [*folder.glob(f"{name}.log"), *folder.glob(f"{name}.out")]
            told = "".join(path.read_text(errors="replace")[-2000:] for path in logs)
            raise RuntimeError(f"{name} did not come up (exit code {daemon.poll()}):\n{told}")
        time.sleep(0.1)


def _stop(running: "list[subprocess.Popen[bytes]]", env: Mapping[str, str], user: str) -> None:
    """Jobs first, then the daemons in the opposite order; nothing of ours is left."""
    if len(running) == 3:
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(["scancel", f"--user={user}"], env=env, capture_output=True, timeout=10)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and _jobs_run(env):
            time.sleep(0.2)
    for daemon in reversed(running):
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(timeout=10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _jobs_run(env: Mapping[str, str]) -> bool:
    with suppress(subprocess.TimeoutExpired):
        told = subprocess.run(
            ["squeue", "-h", "-t", "R,CG"], env=env, capture_output=True, timeout=10
        )
        return bool(told.stdout.strip())
    return False
