"""Version, public and deprecated names, type hints, contents of the wheel, and the lock."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

import dpc_interp
from dpc_interp.models.hooked import HookedModel

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
    """The pins of the lock without comments and markers."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [line.split(";")[0].strip() for line in lines if line and not line.lstrip().startswith("#")]


def test_version_is_that_of_the_project_file():
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


def test_wheel_contains_every_file_of_the_package(tmp_path: Path):
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


def test_lock_has_no_cuda_packages(locked: list[str]):
    assert "torch==2.13.0" in locked
    assert [pin for pin in locked if re.match(r"nvidia|cuda|triton", pin)] == []


@pytest.fixture(scope="module")
def runs(model: HookedModel, prompt: dpc_interp.SoftPrompt, written) -> list[dpc_interp.Transcript]:
    return [written("buys 8: 9 + 8 = 17\n#### 17", name="story-0"), written("9 + 8 = 17\n#### 17", name="story-1")]


@pytest.mark.parametrize(
    ("old", "new"),
    [("peaks", "accumulation_peaks"), ("act", "attention_calibration"), ("sensitivity", "option_sensitivity")],
)
def test_old_functions_are_the_new_ones(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"dpc_interp\.{old} is deprecated .* use dpc_interp\.{new}"):
        function = getattr(dpc_interp, old)
    assert function is getattr(dpc_interp, new)
    assert old not in dpc_interp.__all__


def test_unknown_names_raise_as_in_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'dpc_interp' has no attribute 'peak'"):
        _ = dpc_interp.peak


def test_with_rationale_takes_its_arguments_in_the_old_order(model: HookedModel, written) -> None:
    runs = [written("#### 17"), written("9 + 8 = 17\n#### 17")]
    with pytest.warns(DeprecationWarning, match=r"use dpc_interp\.drop_empty_rationales\(model, runs\)"):
        with_rationale = dpc_interp.with_rationale
    assert with_rationale(runs, model) == dpc_interp.drop_empty_rationales(model, runs) == runs[1:]


def test_old_price_of_results(model: HookedModel, prompt: dpc_interp.SoftPrompt) -> None:
    problems, rule = dpc_interp.load_problems("story", n=3, max_steps=1), dpc_interp.TriggerRule("late_share", 0.5)
    results = dpc_interp.evaluate(model, problems, prompt, ["pt"], rule=rule, max_new_tokens=4, progress=False)
    with pytest.warns(DeprecationWarning, match=r"Results\.price is deprecated .* use Results\.cost"):
        price = results.price
    pd.testing.assert_frame_equal(price, results.cost)


def test_old_checkpoint_of_a_memory_plan() -> None:
    for chosen in (False, True):
        plan = dpc_interp.MemoryPlan(batch_size=1, gradient_checkpointing=chosen, needed=1, available=2)
        with pytest.warns(DeprecationWarning, match=r"use MemoryPlan\.gradient_checkpointing"):
            assert plan.checkpoint is chosen


def test_old_checkpoint_keywords(
    model: HookedModel, prompt: dpc_interp.SoftPrompt, runs: list[dpc_interp.Transcript]
) -> None:
    run = runs[0]
    calls: dict[str, Callable[..., object]] = {
        "saliency": lambda **options: dpc_interp.saliency(
            model, run.tokens, prompt, len(run.question_tokens), **options
        ),
        "saliency_map": lambda **options: dpc_interp.saliency_map(model, run, prompt, **options).values,
        "analyse": lambda **options: dpc_interp.analyse(model, runs, prompt, progress=False, **options).flow,
        "plan_memory": lambda **options: dpc_interp.plan_memory(model, [40], available=2**34, **options),
    }
    for name, call in calls.items():
        expected = call(gradient_checkpointing=True)
        with pytest.warns(DeprecationWarning, match="checkpoint= is deprecated .* use gradient_checkpointing="):
            result = call(checkpoint=True)
        if isinstance(expected, torch.Tensor):
            assert torch.equal(result, expected), name
        elif isinstance(expected, pd.DataFrame):
            pd.testing.assert_frame_equal(result, expected)
        else:
            assert result == expected, name


def test_old_drafts_keyword(model: HookedModel, prompt: dpc_interp.SoftPrompt, problems) -> None:
    drafts = [torch.tensor([40, 41])] * 3
    options = {"max_new_tokens": 4, "progress": False}
    expected = dpc_interp.generate(model, problems[:3], prompt, draft_tokens=drafts, **options)
    with pytest.warns(DeprecationWarning, match="drafts= is deprecated .* use draft_tokens="):
        runs = dpc_interp.generate(model, problems[:3], prompt, drafts=drafts, **options)
    assert [run.text for run in runs] == [run.text for run in expected]


def test_old_draft_rationales_keyword(model: HookedModel, prompt: dpc_interp.SoftPrompt) -> None:
    problems, rule = dpc_interp.load_problems("story", n=3, max_steps=1), dpc_interp.TriggerRule("late_share", 0.5)

    def evaluate(**fields: bool) -> pd.DataFrame:
        arguments = {"rule": rule, "max_new_tokens": 4, "progress": False, **fields}
        return dpc_interp.evaluate(model, problems, prompt, ["pt"], **arguments).instances

    with pytest.warns(DeprecationWarning, match="draft_rationales= is deprecated .* use speculate_from_gold="):
        instances = evaluate(draft_rationales=True)
    pd.testing.assert_frame_equal(instances, evaluate(speculate_from_gold=True))


def test_old_tuning_keywords(model: HookedModel, problems) -> None:
    new = {"max_steps": 2, "eval_steps": 1, "early_stopping_patience": 2}
    expected = dpc_interp.tune_prompt(model, problems, 3, progress=False, **new)
    with pytest.warns(DeprecationWarning, match="is deprecated") as caught:
        prompt = dpc_interp.tune_prompt(model, problems, 3, progress=False, n_steps=2, check_every=1, patience=2)
    messages = " ".join(str(warning.message) for warning in caught)
    for old, name in (("n_steps", "max_steps"), ("check_every", "eval_steps"), ("patience", "early_stopping_patience")):
        assert re.search(rf"{old}= is deprecated [\w\s;]*use {name}=", messages)
    assert torch.equal(prompt.vectors, expected.vectors)


def test_a_script_of_a_user(tmp_path: Path) -> None:
    """Warnings point at it, and the import loads no library that is slow and seldom needed.

    In a separate process, because the type checks of the tests add frames to every call.
    """
    slow = ("anywidget", "math_verify", "peft", "ray", "scipy.stats", "sklearn", "statsmodels")
    script = tmp_path / "user.py"
    script.write_text(
        f"import sys; import dpc_interp as dpc; print(sorted(sys.modules.keys() & {slow}))\n"
        "dpc.peaks\n"
        "dpc.plan_memory(dpc.load_model('reasoner'), [40], checkpoint=True)\n"
        "try:\n"
        "    dpc.tune_prompt(dpc.load_model('reasoner'), [], 3, n_steps=2)\n"
        "except dpc.DPCInterpError:\n"
        "    pass\n"
    )
    command = [sys.executable, "-W", "always::DeprecationWarning", str(script)]
    process = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    lines = re.findall(rf"^{re.escape(str(script))}:(\d+): DeprecationWarning: \S+ is deprecated", process.stderr, re.M)
    assert lines == ["2", "3", "5"], process.stderr
    assert process.stdout.splitlines()[0] == "[]"


def test_user_scripts_see_the_types(tmp_path: Path) -> None:
    """The package is typed: `mypy --strict` passes on a script that uses it, and knows the type of an attribute."""
    assert (ROOT / "dpc_interp" / "py.typed").is_file()
    script = tmp_path / "user.py"
    script.write_text(
        'import dpc_interp as dpc\nrule = dpc.TriggerRule("late_share", 0.5)\nreveal_type(rule.threshold)\n'
    )
    # outside the repository; `make types` has the same options (strict), so its cache saves a minute
    options = ["--strict", f"--config-file={ROOT / 'pyproject.toml'}", f"--cache-dir={ROOT / '.mypy_cache'}"]
    process = subprocess.run(
        [sys.executable, "-m", "mypy", *options, script.name], cwd=tmp_path, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert 'Revealed type is "float"' in process.stdout
