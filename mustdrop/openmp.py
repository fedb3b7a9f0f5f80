"""Makes idle OpenMP threads sleep. Import this before torch, whose OpenMP reads it when it loads.

A thread that waits actively uses CPU time that the other threads need: on a shared machine the same
run took 33 seconds of CPU instead of 10. A policy that the user has set takes precedence. Imports
nothing else.

Attributes:
    TOO_LATE: Whether torch was imported before, without a policy: its threads wait actively.
"""

import os
import sys

POLICY = "OMP_WAIT_POLICY"
PASSIVE = {
    POLICY: "PASSIVE",  # GNU's OpenMP, torch's on Linux
    "KMP_BLOCKTIME": "0",  # Intel's and LLVM's, which would first wait actively for 200 ms
}

TOO_LATE = POLICY not in os.environ and "torch" in sys.modules
# GOMP_SPINCOUNT needs no entry: GNU's OpenMP takes it from OMP_WAIT_POLICY where it is not set.
if POLICY not in os.environ:
    for _name, _value in PASSIVE.items():
        os.environ.setdefault(_name, _value)
