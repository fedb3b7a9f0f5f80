"""How OpenMP's threads wait: asleep. Import this before torch, whose OpenMP reads it when it loads.

A thread that waits for others busily takes the CPU that these others need: on a shared machine the
same run took 33 seconds of CPU instead of 10. What the user's own environment says wins. Imports
nothing else.
"""

import os

POLICY = "OMP_WAIT_POLICY"
PASSIVE = {
    POLICY: "PASSIVE",  # GNU's OpenMP, torch's on Linux
    "KMP_BLOCKTIME": "0",  # Intel's and LLVM's, which would wait busily for 200 ms first
}

# GOMP_SPINCOUNT needs no entry: GNU's OpenMP takes it from OMP_WAIT_POLICY where it is not set.
if POLICY not in os.environ:
    for _name, _value in PASSIVE.items():
        os.environ.setdefault(_name, _value)
