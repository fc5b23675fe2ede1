"""Set-up shared by all tests: offline, one thread, seeded, and the package's type hints checked as it runs."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
os.environ["OMP_NUM_THREADS"] = "1"  # for child processes too, notebook kernels among them

import random

import matplotlib
import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook("dpc_interp", "beartype.beartype")  # before the first import of the package

matplotlib.use("Agg")  # not by MPLBACKEND, which a notebook's kernel would take over
torch.set_num_threads(1)  # pytest-xdist fills the cores; sums do not depend on their number


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Give every test the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
