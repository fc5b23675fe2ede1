"""What ships is what is promised: version, public names, wheel contents, lock."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import dpc_interp

ROOT = Path(__file__).parents[1]
ASSET_LIMIT = 20_000_000  # bytes

FUNCTIONS = {  # name -> the keywords that callers may rely on
    "load_model": (),
    "load_prompt": (),
    "tune_prompt": ("n_virtual_tokens", "seed"),
    "load_problems": ("split", "n", "seed", "max_steps"),
    "generate": ("prompt",),
    "prompted": (),
    "saliency": (),
    "saliency_map": ("prompt",),
    "analyse": ("prompt",),
    "trigger_statistics": (),
    "calibrate_trigger": ("criterion",),
    "plan_corruption": ("gamma", "mask"),
    "corrupted": (),
    "evaluate": ("prompt", "methods", "out"),
}
CLASSES = ("SoftPrompt", "Segments", "Transcript", "TriggerRule", "CorruptionPlan")


@pytest.fixture(scope="module")
def locked() -> list[str]:
    """The pins of the lock, without comments and markers."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [line.split(";")[0].strip() for line in lines if line and not line.lstrip().startswith("#")]


def test_version_is_the_project_file_s():
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared is not None
    assert dpc_interp.__version__ == declared[1]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_function_takes_its_keywords(name: str):
    assert name in dpc_interp.__all__
    parameters = inspect.signature(getattr(dpc_interp, name)).parameters
    assert set(FUNCTIONS[name]) <= set(parameters)


@pytest.mark.parametrize("name", CLASSES)
def test_public_class(name: str):
    assert name in dpc_interp.__all__
    assert inspect.isclass(getattr(dpc_interp, name))


def test_wheel_holds_the_whole_package(tmp_path: Path):
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}

    package = ROOT / "dpc_interp"
    files = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path.relative_to(ROOT).as_posix() for path in files} <= set(sizes)
    assert any(name.endswith(".mplstyle") for name in sizes)
    assets = [size for name, size in sizes.items() if name.startswith("dpc_interp/assets/")]
    assert 0 < sum(assets) <= ASSET_LIMIT


def test_lock_pins_every_package_exactly(locked: list[str]):
    assert [pin for pin in locked if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*==\S+", pin)] == []


def test_lock_leaves_cuda_to_torch(locked: list[str]):
    assert "torch==2.13.0" in locked
    assert [pin for pin in locked if re.match(r"nvidia|cuda|triton", pin)] == []
