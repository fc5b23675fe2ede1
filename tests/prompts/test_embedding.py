"""Vectors are read right or refused; a text gives its embeddings; random vectors have the moments of the table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from peft import PromptEmbedding, PromptTuningConfig
from torch.nn import Parameter

from dpc_interp import SoftPrompt, load_model, load_prompt, tune_prompt
from dpc_interp.analysis.controls import control_prompts
from dpc_interp.errors import DPCInterpError, ShapeError
from dpc_interp.models.hooked import HookedModel
from dpc_interp.prompts import embedding
from dpc_interp.prompts.embedding import (
    embed_tokens,
    embedding_moments,
    gaussian_vectors,
    random_vectors,
    repeat_or_cut,
)

TEXT = "Tom has 7 apples."
VECTORS = torch.arange(6).view(2, 3) / 4


@pytest.mark.parametrize(
    "given",
    [
        VECTORS.numpy(),
        VECTORS.double().numpy(),
        VECTORS.numpy().astype(">f8"),
        VECTORS.half().numpy(),
        VECTORS.tolist(),
        tuple(map(tuple, VECTORS.tolist())),
        list(VECTORS),
        pd.DataFrame(VECTORS.numpy()),
        Parameter(VECTORS.clone()),
        VECTORS.clone(),
    ],
    ids=["array", "float64", "big-endian", "half", "list", "tuples", "list of tensors", "frame", "parameter", "tensor"],
)
def test_tables_of_numbers_are_vectors(given: object, tmp_path: Path) -> None:
    prompt = SoftPrompt(given)
    assert type(prompt.vectors) is torch.Tensor
    assert prompt.vectors.dtype == torch.float32
    assert not prompt.vectors.requires_grad
    assert torch.equal(prompt.vectors, VECTORS)
    prompt.save_pretrained(tmp_path)
    assert torch.equal(load_prompt(tmp_path).vectors, VECTORS)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (torch.ones(16), r"\[16\]; give \[n_virtual, d_model\]: vectors\[None\] is one virtual token"),
        (torch.ones(1, 5, 16), r"\[1, 5, 16\]; give .*: vectors\[0\] is the first prompt of a batch"),
        (torch.ones(()), r"is \[\]; give \[n_virtual, d_model\]$"),
        (torch.ones(0, 16), r"\[0, 16\]; give \[n_virtual"),
        (torch.ones(5, 0), r"\[5, 0\]; give \[n_virtual"),
        (np.ones(16), r"\[16\]; give"),
        ([], r"\[0\]; give"),
        (torch.ones(5, 16, dtype=torch.int64), "are int64; give floating-point numbers, or SoftPrompt.from_text"),
        ([[1, 2], [3, 4]], "are int64; give floating"),
        (torch.ones(5, 16) > 0, "are bool; give floating"),
        (torch.ones(5, 16) * 1j, "are complex64; give floating"),
        ([[1.0, 2.0], [3.0]], "are a list that is no table of numbers; give a tensor"),
        ("Think step by step.", "are a str that is no table of numbers"),
        (None, "are a NoneType that is no table of numbers"),
        ([["a", "b"]], "are a list that is no table of numbers"),
    ],
)
def test_what_is_no_table_of_vectors_raises_one_line(given: object, match: str) -> None:
    with pytest.raises(DPCInterpError, match=match) as caught:
        SoftPrompt(given)
    assert "\n" not in str(caught.value)


def test_wrong_shapes_are_shape_errors() -> None:
    with pytest.raises(ShapeError):
        SoftPrompt(torch.ones(16))


def test_a_parameter_that_is_trained_on_leaves_the_prompt_alone() -> None:
    weight = Parameter(VECTORS.clone())
    prompt = SoftPrompt(weight)
    weight.data.add_(1)
    assert torch.equal(prompt.vectors, VECTORS)


def test_a_tensor_keeps_its_gradient_and_dtype() -> None:
    vectors = VECTORS.double().requires_grad_()
    assert SoftPrompt(vectors).vectors is vectors


def test_a_text_gives_the_rows_of_the_table(any_model: HookedModel) -> None:
    ids = any_model.tokenizer(TEXT, add_special_tokens=False).input_ids
    prompt = SoftPrompt.from_text(any_model, TEXT)
    assert torch.equal(prompt.vectors, any_model.W_E[ids])
    assert (prompt.name, prompt.recipe) == (TEXT, {"text": TEXT, "n_virtual": len(ids)})
    assert (prompt.vectors.dtype, prompt.vectors.device.type) == (torch.float32, "cpu")
    assert prompt.base_model == any_model.cfg.model_name


def test_special_tokens_are_left_out(model: HookedModel) -> None:
    assert model.tokenizer.bos_token_id not in embedding.text_tokens(model, TEXT).tolist()


@pytest.mark.parametrize("n_virtual", [1, 3, 6, 7, 23])
def test_a_text_is_repeated_or_cut_as_by_peft(model: HookedModel, n_virtual: int, monkeypatch) -> None:
    prompt = SoftPrompt.from_text(model, TEXT, n_virtual, name="mine")
    assert prompt.name == "mine"
    assert prompt.recipe["n_virtual"] == n_virtual
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: WithoutSpecial(model.tokenizer))
    config = PromptTuningConfig(
        num_virtual_tokens=n_virtual,
        token_dim=16,
        num_transformer_submodules=1,
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text=TEXT,
        tokenizer_name_or_path="ours",
    )
    table = torch.nn.Embedding.from_pretrained(model.W_E.float())
    assert torch.equal(prompt.vectors, PromptEmbedding(config, table).embedding.weight)


class WithoutSpecial:
    """A tokenizer as PEFT calls it, without special tokens."""

    def __init__(self, tokenizer: Callable):
        self.tokenizer = tokenizer

    def __call__(self, text: str) -> dict[str, list[int]]:
        return self.tokenizer(text, add_special_tokens=False)


def test_tuning_starts_from_the_same_vectors(model: HookedModel, problems, monkeypatch) -> None:
    starts: list[torch.Tensor] = []

    def keep(model: object, vectors: torch.Tensor, *_: object) -> tuple[torch.Tensor, list[dict[str, float]]]:
        starts.append(vectors.detach().clone())
        return vectors.detach(), []

    monkeypatch.setattr("dpc_interp.prompts.tuning._train", keep)
    tune_prompt(model, problems, 9, init_text=TEXT, progress=False)
    assert torch.equal(starts[0], SoftPrompt.from_text(model, TEXT, 9).vectors)


def test_a_control_prompt_of_a_text_is_the_same(model: HookedModel, prompt: SoftPrompt) -> None:
    controls = control_prompts(model, prompt, conditions=["text"], text=TEXT)
    assert torch.equal(controls["text"], SoftPrompt.from_text(model, TEXT, prompt.n_virtual).vectors)


@pytest.mark.parametrize(
    ("text", "n_virtual", "match"),
    [
        ("", None, "text has no tokens; give a text"),
        (TEXT, 0, "n_virtual is 0; give at least 1"),
        (TEXT, -2, "n_virtual is -2; give at least 1"),
        ("Xylophone quartz", None, "the model's vocabulary lacks words of 'Xylophone quartz'"),
    ],
)
def test_a_text_that_gives_no_prompt_raises(model: HookedModel, text: str, n_virtual: int | None, match: str) -> None:
    with pytest.raises(DPCInterpError, match=match):
        SoftPrompt.from_text(model, text, n_virtual)


def test_a_long_text_has_a_short_name(model: HookedModel) -> None:
    prompt = SoftPrompt.from_text(model, "Tom has 7 apples.\n" * 9)
    assert prompt.name == "Tom has 7 apples. Tom has 7 apples. Tom "
    assert prompt.recipe["text"] == "Tom has 7 apples.\n" * 9


def test_random_vectors_have_the_moments_of_the_table(any_model: HookedModel) -> None:
    table = any_model.W_E.double()
    vectors = SoftPrompt.random(any_model, 40_000).vectors
    scale = table.std(0)
    # standard errors of a mean and of a standard deviation: std / sqrt(n), std / sqrt(2 n); five of them
    assert ((vectors.double().mean(0) - table.mean(0)).abs() < 5 * scale / 40_000**0.5).all()
    assert ((vectors.double().std(0) - scale).abs() < 5 * scale / 80_000**0.5).all()


def test_a_shifted_column_is_kept(build: Callable) -> None:
    """Moments are those of each column, not of the table."""
    model = build("plain")
    with torch.no_grad():
        model.W_E[:, 3] = 7 + 0.001 * model.W_E[:, 3]
        model.W_E[:, 4] *= 100
    vectors = SoftPrompt.random(model, 500).vectors
    assert (vectors[:, 3] - 7).abs().max() < 0.1
    assert vectors[:, 4].std() > 20 * vectors[:, 5].std()


def test_random_vectors_are_those_of_the_seed(model: HookedModel, monkeypatch) -> None:
    one = SoftPrompt.random(model, 6)
    torch.manual_seed(99)  # the global state does not matter
    assert torch.equal(SoftPrompt.random(model, 6, seed=0).vectors, one.vectors)
    assert not torch.equal(SoftPrompt.random(model, 6, seed=1).vectors, one.vectors)
    noise = torch.randn(6, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(one.vectors, model.W_E.mean(0) + model.W_E.std(0) * noise)
    assert (one.name, one.recipe) == ("random/seed0", {"init": "random", "seed": 0, "n_virtual": 6})
    monkeypatch.setattr(embedding, "N_ROWS", 7)  # several chunks
    torch.testing.assert_close(random_vectors(model, 6, 0), one.vectors, rtol=0, atol=1e-7)


def test_moments_are_those_of_each_column(any_model: HookedModel, monkeypatch) -> None:
    table = any_model.W_E.double()
    for n_rows in (10_000, 7):  # one chunk, several
        monkeypatch.setattr(embedding, "N_ROWS", n_rows)
        mean, std = embedding_moments(any_model)
        torch.testing.assert_close(mean, table.mean(0))
        torch.testing.assert_close(std, table.std(0))
        assert mean.dtype == std.dtype == torch.float64


def test_gaussian_vectors_are_scaled_draws_of_the_seed() -> None:
    mean, std = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 0.0]).double()
    vectors = gaussian_vectors(mean, std, 3, seed=6)
    noise = torch.randn(3, 2, generator=torch.Generator().manual_seed(6))
    torch.testing.assert_close(vectors, torch.stack([1 + 0.5 * noise[:, 0], torch.full((3,), -2.0)], dim=1))
    assert vectors.dtype == torch.float32


@pytest.mark.parametrize("n_virtual", [0, -1])
def test_a_random_prompt_has_at_least_one_token(model: HookedModel, n_virtual: int) -> None:
    with pytest.raises(DPCInterpError, match=f"n_virtual is {n_virtual}; give at least 1"):
        SoftPrompt.random(model, n_virtual)


def test_prompts_made_here_are_saved_and_loaded(model: HookedModel, tmp_path: Path) -> None:
    for prompt in (SoftPrompt.from_text(model, TEXT), SoftPrompt.random(model, 4, seed=2)):
        prompt.save_pretrained(tmp_path / prompt.name)
        loaded = load_prompt(tmp_path / prompt.name, model)
        assert torch.equal(loaded.vectors, prompt.vectors)
        assert (loaded.name, loaded.recipe, loaded.base_model) == (prompt.name, prompt.recipe, prompt.base_model)


def test_the_embedding_of_a_half_precision_model_is_float32() -> None:
    model = load_model("reasoner", device="cpu", dtype=torch.bfloat16)
    vectors = embed_tokens(model, torch.tensor([5, 6]))
    assert vectors.dtype == torch.float32
    assert torch.equal(vectors, model.W_E[[5, 6]].float())


def test_repeat_or_cut() -> None:
    tokens = torch.tensor([1, 2, 3])
    assert [repeat_or_cut(tokens, n).tolist() for n in (2, 3, 7)] == [[1, 2], [1, 2, 3], [1, 2, 3, 1, 2, 3, 1]]
