"""Where decoding stops: as Hugging Face's `generate` at end tokens, before stop strings, at a length by task."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from dpc_interp import DPCInterpError, Problem, generate, load_model
from dpc_interp.errors import ContextLengthError
from dpc_interp.generation.stopping import (
    DEFAULT_LENGTH,
    StopRule,
    UnfinishedWarning,
    check_stop_strings,
    resolve_max_new_tokens,
)
from dpc_interp.models.hooked import HookedModel
from dpc_interp.tasks.answers import STOP_STRINGS

N_NEW = 24
PLACEMENTS = ("generation_config, several", "generation_config, one", "config", "tokenizer")


def written_by(model: PreTrainedModel, question: torch.Tensor, **options: Any) -> list[int]:
    """What Hugging Face's own greedy decoding writes."""
    mask = torch.ones_like(question)
    ids = model.generate(question, attention_mask=mask, max_new_tokens=N_NEW, do_sample=False, **options)
    return ids[0, question.shape[1] :].tolist()


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("backend", ["hooked", "bridge"])
def test_stop_lengths_are_those_of_hugging_face(
    placement: str,
    backend: str,
    hugging_face: Callable[..., PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    problems: list[Problem],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """The end tokens are tokens that the model writes, so that most rows end early."""
    if backend == "hooked":
        request.getfixturevalue("needs_hooked")
    theirs = hugging_face("llama")
    questions = [torch.tensor(tokenizer(p.question + "\n").input_ids)[None] for p in problems[:8]]
    free = [written_by(theirs, question, eos_token_id=None) for question in questions]
    ends = sorted({row[k] for row, k in zip(free, (5, 9, 3, 7, 11, 4, 8, 6), strict=True)})
    eos = tokenizer.eos_token_id
    theirs.generation_config.eos_token_id = {
        "generation_config, several": [eos, *ends],
        "generation_config, one": ends[0],
        "config": None,
    }.get(placement, eos)
    theirs.config.eos_token_id = ends[-1] if placement == "config" else eos
    if placement == "config":  # as in a folder without generation_config.json
        theirs.generation_config = type(theirs.generation_config).from_model_config(theirs.config)
    theirs.save_pretrained(tmp_path)
    if placement == "config":
        (tmp_path / "generation_config.json").unlink()
    tokenizer.save_pretrained(tmp_path)
    model = load_model(tmp_path, device="cpu", backend=backend)
    reference = type(theirs).from_pretrained(tmp_path)
    runs = generate(model, problems[:8], max_new_tokens=N_NEW, stop_strings=(), progress=False)
    for run, question in zip(runs, questions, strict=True):
        expected = written_by(reference, question)
        ours = run.generated_tokens.tolist()
        assert run.question_tokens.tolist() == question[0].tolist()
        if placement == "config":  # Hugging Face names one token here, and the tokenizer's own is added
            ours = ours[:-1] if eos in ours and eos not in expected else ours
            assert ours == expected[: len(ours)]
        else:
            assert ours == expected
        assert run.finished == (len(expected) < N_NEW or expected[-1] in (eos, *ends)) or placement == "config"
    if placement.startswith("generation_config"):
        assert sum(run.finished for run in runs) >= 2


def character_tokenizer() -> PreTrainedTokenizerBase:
    """One token a character, so that any text can be written."""
    characters = [chr(i) for i in range(32, 127)] + ["\n"]
    vocabulary = {token: i for i, token in enumerate(["<eos>", *characters])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<eos>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", clean_up_tokenization_spaces=False)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("9 + 8 = 17\n#### 17\nQuestion: Tom has 3", "9 + 8 = 17\n#### 17"),
        ("#### 17\n\nQ: What", "#### 17\n"),
        ("#### 17\nProblem: Show", "#### 17"),
        ("#### 17\n### Instruction", "#### 17"),
        ("#### 17\nUser: next", "#### 17"),
        ("The Question: Tom has", "The Question: Tom has"),
        ("", ""),
    ],
)
def test_texts_end_before_a_stop_string(model: HookedModel, text: str, kept: str) -> None:
    reader = copy(model)
    reader.tokenizer = tokenizer = character_tokenizer()
    ids = tokenizer(text).input_ids
    rule = StopRule(reader, 1000)
    assert tokenizer.decode(rule.cut(ids)) == kept
    ended = [rule.ended(ids[: k + 1]) for k in range(len(ids))]
    assert any(ended) == (text != kept)
    if any(ended):
        assert tokenizer.decode(ids[: ended.index(True) + 1]).endswith((":", "Instruction")), "at once"


def test_generation_stops_at_a_stop_string(model: HookedModel, problems: list[Problem]) -> None:
    """Stop strings that the model writes cut its texts, at the same place with and without drafts."""
    free = generate(model, problems[:6], max_new_tokens=40, stop_strings=(), progress=False)
    piece = next(model.tokenizer.decode([token]) for token in free[0].generated_tokens[6:].tolist())
    cut = generate(model, problems[:6], max_new_tokens=40, stop_strings=[piece], progress=False)
    drafts = [run.generated_tokens for run in free]
    drafted = generate(
        model, problems[:6], max_new_tokens=40, stop_strings=[piece], draft_tokens=drafts, progress=False
    )
    for before, after, other in zip(free, cut, drafted, strict=True):
        text = model.tokenizer.decode(before.generated_tokens)
        expected = text.partition(piece)[0]
        assert expected.startswith(model.tokenizer.decode(after.generated_tokens))
        assert piece not in model.tokenizer.decode(after.generated_tokens)
        assert after.generated_tokens.tolist() == other.generated_tokens.tolist()
        assert after.finished == (piece in text or before.finished)
    assert len(cut[0].generated_tokens) < len(free[0].generated_tokens)


def test_share_of_texts_that_were_cut_off_is_a_warning(build: Callable[..., HookedModel], problems) -> None:
    model = build(stop_logit=-1e4)
    with pytest.warns(UnfinishedWarning, match=r"4 of 4 texts \(100%\) were cut off at max_new_tokens=3"):
        runs = generate(model, problems[:4], max_new_tokens=3, progress=False)
    assert [run.finished for run in runs] == [False] * 4


def test_lengths_are_by_task_and_leave_the_context(model: HookedModel) -> None:
    def of(task: str) -> list[Problem]:
        return [Problem(task, "q", "", "1", 1)]

    n_ctx = model.cfg.n_ctx
    assert resolve_max_new_tokens(model, of("story"), 10, None) == 96
    assert resolve_max_new_tokens(model, of("mine"), 10, None) == min(DEFAULT_LENGTH, n_ctx - 10)
    assert resolve_max_new_tokens(model, of("mine"), 10, 7) == 7
    with pytest.raises(ContextLengthError, match="shorten the input"):
        resolve_max_new_tokens(model, of("mine"), n_ctx, None)
    with pytest.raises(DPCInterpError, match="give at least 1"):
        resolve_max_new_tokens(model, of("mine"), 1, 0)


@pytest.mark.parametrize("strings", ["Question:", [""], ["a", ""]])
def test_bad_stop_strings_are_refused(strings) -> None:
    with pytest.raises(DPCInterpError, match="stop_strings"):
        check_stop_strings(strings)
    check_stop_strings(STOP_STRINGS)


@pytest.mark.parametrize("string", ["\n\u554f\u984c\uff1a", "\U0001f600"], ids=["characters", "emoji"])
def test_a_stop_string_may_end_in_a_character_of_several_tokens(model: HookedModel, string: str) -> None:
    """One token a byte: the last one alone is decoded as U+FFFD."""
    vocabulary = {symbol: i for i, symbol in enumerate(["<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    reader = copy(model)
    reader.tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<eos>", clean_up_tokenization_spaces=False
    )
    rule = StopRule(reader, 100, [string])
    row = reader.tokenizer(f"#### 17{string} and more", add_special_tokens=False).input_ids
    n_until = len(reader.tokenizer(f"#### 17{string}", add_special_tokens=False).input_ids)
    assert [rule.ended(row[:n]) for n in (n_until - 1, n_until)] == [False, True]
    assert reader.tokenizer.decode(rule.cut(row)) == "#### 17"
