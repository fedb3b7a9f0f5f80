"""Runs code in a process of its own that has the pretend device."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
BEGIN = """
import json
import torch

torch.set_num_threads(1)
torch.inference_mode = torch.no_grad  # wrapped tensors have no inference mode
from pretend_device import Pretend, PretendDevice, moved
plain = torch.tensor

def tensor(data, *args, **kwargs):  # the models make tensors from numbers on the device
    if isinstance(data, (list, tuple)):
        data = [part.tolist() if isinstance(part, Pretend) else part for part in data]
    return plain(data, *args, **kwargs)

torch.tensor = tensor
"""


def alone(code: str):
    """What code prints as JSON in a process of its own."""
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "helpers"))),
    }  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BEGIN + code)], cwd=ROOT, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])
