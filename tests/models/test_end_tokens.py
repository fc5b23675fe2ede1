"""End tokens are those at which Hugging Face's `generate` stops, whichever file names them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, PreTrainedModel

from dpc_interp import DPCInterpError, load_model
from dpc_interp.models import loading
from dpc_interp.models.end_tokens import end_tokens, named_end_tokens
from dpc_interp.models.hooked import HookedModel

Tiny = Callable[..., Path]
EOS = 2
"""The tokenizer's."""
# what generation_config.json names (None: no such file), config.json names, the tokenizer names -> end tokens
PLACEMENTS: dict[str, tuple[Any, Any, int | None, tuple[int, ...]]] = {
    "several in generation_config.json": ([7, 5], EOS, EOS, (7, 5)),
    "several, the tokenizer's among them": ([7, EOS], EOS, EOS, (EOS, 7)),
    "one in generation_config.json": (7, EOS, EOS, (7,)),
    "config.json alone": (None, 7, None, (7,)),
    "config.json, another than the tokenizer's": (None, 7, EOS, (7,)),
    "several in config.json": (None, [7, 9], EOS, (7, 9)),
    "no EOS in the tokenizer": ([EOS, 7], None, None, (EOS, 7)),
    "an empty generation_config.json": ({}, 7, EOS, (EOS, 7)),
    "the tokenizer alone": (None, None, EOS, (EOS,)),
    "the tokenizer alone, an empty generation_config.json": ({}, None, EOS, (EOS,)),
}
NAMED_FOR_GENERATE = [name for name, (gen, config, *_) in PLACEMENTS.items() if gen or (gen is None and config)]
"""Placements in which Hugging Face's `generate` stops at all."""


def edit_json(file: Path, **changes: Any) -> None:
    """Set values of a JSON file; None removes them."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.fixture
def place(tiny: Tiny, tmp_path: Path) -> Callable[..., Path]:
    """A folder whose end tokens are named in the given places."""

    def make(generation: Any, config: Any, tokenizer: int | None, **shape: Any) -> Path:
        folder = tiny("llama", tmp_path, **shape)
        edit_json(folder / "config.json", eos_token_id=config)
        if generation is None:
            (folder / "generation_config.json").unlink()
        else:
            edit_json(folder / "generation_config.json", eos_token_id=None if generation == {} else generation)
        if tokenizer is None:
            edit_json(folder / "tokenizer_config.json", eos_token=None)
        return folder

    return make


@torch.no_grad()
def stop_length(hf_model: PreTrainedModel, question: list[int], stops: tuple[int, ...] | None = None) -> int:
    """Tokens that Hugging Face writes, the end token included; `stops`: a greedy loop that stops at these."""
    tokens = torch.tensor([question])
    if stops is None:
        return hf_model.generate(tokens, max_new_tokens=60, do_sample=False).shape[1] - len(question)
    for n in range(1, 61):
        token = hf_model(tokens).logits[0, -1].argmax()
        tokens = torch.cat([tokens, token.view(1, 1)], dim=1)
        if int(token) in stops:
            return n
    return 60


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_end_tokens_of_each_placement(place: Callable[..., Path], placement: str, backend: str) -> None:
    generation, config, tokenizer, expected = PLACEMENTS[placement]
    model = load_model(str(place(generation, config, tokenizer)), device="cpu", backend=backend)
    assert end_tokens(model) == expected


@pytest.mark.parametrize("placement", NAMED_FOR_GENERATE)
def test_stop_lengths_equal_those_of_generate(place: Callable[..., Path], placement: str) -> None:
    """Wherever Hugging Face names an end token; the tokens are replaced by those that the model really writes."""
    generation, config, tokenizer, _ = PLACEMENTS[placement]
    folder = place(None, None, EOS)
    free = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    question = [1, 30, 40, 50]
    written = free.generate(torch.tensor([question]), max_new_tokens=60, do_sample=False)[0, len(question) :].tolist()
    late, early = written[9], written[4]

    def swap(named: Any) -> Any:
        replace = {7: late, 5: early, 9: early, EOS: EOS}
        return [replace[i] for i in named] if isinstance(named, list) else replace.get(named)

    folder = place(swap(generation), swap(config), tokenizer)
    theirs = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    ours = end_tokens(load_model(str(folder), device="cpu"))
    expected = stop_length(theirs, question)
    assert expected < 60
    assert stop_length(theirs, question, ours) == expected


def test_no_end_token_anywhere_is_refused_at_load(place: Callable[..., Path], backend: str) -> None:
    with pytest.raises(DPCInterpError, match=r"names an end token, so .* into generation_config\.json$"):
        load_model(str(place({}, None, None, eos_token_id=None)), device="cpu", backend=backend)


def test_the_bundled_model_ends_at_its_eos(backend: str) -> None:
    assert end_tokens(load_model("reasoner", device="cpu", backend=backend)) == (EOS,)


def test_end_tokens_are_copied_with_the_model(place: Callable[..., Path]) -> None:
    model = load_model(str(place([7, 5], EOS, EOS)), device="cpu")
    assert end_tokens(deepcopy(model)) == (7, 5)
    cloudpickle = pytest.importorskip("ray").cloudpickle  # as models travel to other processes
    assert end_tokens(pickle.loads(cloudpickle.dumps(model))) == (7, 5)


def test_a_model_that_was_not_loaded_asks_its_tokenizer(build: Callable[..., HookedModel]) -> None:
    assert end_tokens(build("gqa")) == (EOS,)


def test_a_bridge_that_was_not_loaded_asks_its_wrapped_model(
    bridge: Callable[..., HookedModel], hugging_face: Callable[..., PreTrainedModel]
) -> None:
    wrapped = hugging_face("llama")
    wrapped.generation_config.eos_token_id = [7, 5]
    assert end_tokens(bridge(wrapped)) == (7, 5)


def test_an_official_name_reads_both_configurations(monkeypatch: pytest.MonkeyPatch, needs_hooked: None) -> None:
    """The Hub cannot be reached in tests: the model and its files are replaced."""
    model = load_model("reasoner", device="cpu", backend="hooked")
    monkeypatch.setattr(loading, "need_cached_if_unreachable", lambda name, hint: True)
    monkeypatch.setattr(
        loading.HookedTransformer, "from_pretrained_no_processing", lambda *args, **options: deepcopy(model)
    )
    monkeypatch.setattr(loading.GenerationConfig, "from_pretrained", lambda *a, **k: GenerationConfig(eos_token_id=[9]))
    monkeypatch.setattr(loading.AutoConfig, "from_pretrained", lambda *a, **k: LlamaConfig())
    assert end_tokens(load_model("pythia-14m", device="cpu", backend="hooked")) == (9,)


def test_negative_ids_name_no_token() -> None:
    assert named_end_tokens(GenerationConfig(eos_token_id=-1), LlamaConfig(eos_token_id=4), None) == (4,)
