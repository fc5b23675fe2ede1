"""The training of the reasoner: its architecture, its learning rate, and its resumption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from dpc_interp.bundled import train as training
from dpc_interp.bundled.train import CONSTANT_SHARE, WARMUP_TOKENS, learning_rate_factor, reasoner_config, train
from dpc_interp.models.loading import BUNDLED


def test_bundled_model_has_the_stated_architecture() -> None:
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED["reasoner"], local_files_only=True)
    expected = reasoner_config(len(tokenizer)).to_dict()
    shipped = AutoConfig.from_pretrained(BUNDLED["reasoner"], local_files_only=True).to_dict()
    for name in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_key_value_heads",
        "num_attention_heads",
    ):
        assert shipped[name] == expected[name], name


@pytest.mark.parametrize(
    ("seen", "factor"),
    [
        (0, 0.02),
        (0.49 * WARMUP_TOKENS, 0.51),
        (WARMUP_TOKENS, 1.0),
        (30e6 * CONSTANT_SHARE, 1.0),
        (30e6 * (1 + CONSTANT_SHARE) / 2, 0.5),
        (30e6, 0.0),
    ],
)
def test_learning_rate_warms_up_is_constant_then_falls_to_zero(seen: float, factor: float) -> None:
    assert learning_rate_factor(seen, 30_000_000) == pytest.approx(factor)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerBase) -> None:
    """A narrow model of one layer, not compiled, a short warm-up, and a point of the loss curve every second step."""

    def config(d_vocab: int) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=d_vocab,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
        )

    def uncompiled(model: LlamaForCausalLM, **options: Any) -> LlamaForCausalLM:
        return model

    monkeypatch.setattr(training, "reasoner_config", config)
    monkeypatch.setattr(training, "build_tokenizer", lambda: tokenizer)
    monkeypatch.setattr(training, "LOG_STEPS", 2)
    monkeypatch.setattr(training, "WARMUP_TOKENS", 1e3)
    monkeypatch.setattr(torch, "compile", uncompiled)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("dpc_interp.bundled.training_batches.POOL_SIZE", 64)


def test_training_lowers_the_loss_and_records_it(tiny: None, tmp_path: Path) -> None:
    train(tmp_path, 40_000, 1024, seed=0, save_every=1e9)
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["tokens"] >= 40_000
    assert record["steps"] // 2 == len(record["loss"])
    assert record["loss"][-1]["response_nll"] < record["loss"][0]["response_nll"] - 0.5
    assert LlamaForCausalLM.from_pretrained(tmp_path).num_parameters() > 0


def test_resumed_run_equals_an_uninterrupted_one(tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "uninterrupted", 8_000, 1024, seed=0, save_every=1e9)
    step, n_steps = training._training_step, 0

    def stop_after_four_steps(*args: Any) -> float:
        nonlocal n_steps
        n_steps += 1
        if n_steps == 5:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(training, "_training_step", stop_after_four_steps)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "resumed", 8_000, 1024, seed=0, save_every=0)  # saved after every step
    train(tmp_path / "resumed", 8_000, 1024, seed=0, save_every=1e9)
    uninterrupted, resumed = (
        LlamaForCausalLM.from_pretrained(tmp_path / name) for name in ("uninterrupted", "resumed")
    )
    for (name, weight), other in zip(uninterrupted.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(weight, other), name
    summaries = [json.loads((tmp_path / name / "training.json").read_text()) for name in ("uninterrupted", "resumed")]
    assert summaries[0] == summaries[1]
