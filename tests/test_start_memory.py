"""The digest of a model and the start of a run need little memory above the weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "start_memory.py"
SIZES = {"n-layers": 4, "d-model": 1024, "n-heads": 16, "d-mlp": 4096, "d-vocab": 32000}
ALLOWED = 32
"""MB for problems, frames and libraries that are loaded at the first use."""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory of a process is read from /proc")
def test_a_run_starts_in_less_memory_than_its_largest_weight_and_a_constant(needs_hooked: None) -> None:
    """A copy of the model (253 MB), or of the largest weight in float32 (131 MB), is too much."""
    arguments = [f"--{name}={size}" for name, size in SIZES.items()]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=True, env=environment
    )
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["weights"] == pytest.approx(253, abs=1)
    assert row["largest"] == pytest.approx(65.5, abs=0.1)
    assert 0 < row["digest"] < row["largest"] + ALLOWED
    assert 0 < row["start"] < row["largest"] + ALLOWED
