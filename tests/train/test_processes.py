"""What a training sets up in its process."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from pi_dynn.train.processes import keep_freed_memory

if {kept}:
    keep_freed_memory()
for number in range(30):
    torch.ones(16, 2**20)
    if number == 19:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_freed_memory_is_used_again_and_not_cleared_by_the_kernel():
    def faults(kept: bool) -> int:
        line = [sys.executable, "-c", FAULTS.format(kept=kept)]
        return int(subprocess.run(line, capture_output=True, text=True, check=True).stdout)

    assert faults(True) < 100 < faults(False)
