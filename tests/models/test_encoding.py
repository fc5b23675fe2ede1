"""Questions and rationales as token ids, and the mask of the tokens in the loss."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from dpc_interp import DPCInterpError, Problem
from dpc_interp.errors import ContextLengthError
from dpc_interp.models.encoding import encode_question, encode_questions, encode_rationale, loss_mask
from dpc_interp.models.hooked import HookedModel

QUESTION = "Tom has 9 apples. How many apples does Tom have now?"


def test_question_is_bos_text_and_line_break(model: HookedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    ids = encode_question(model, QUESTION).tolist()
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == QUESTION + "\n"
    assert tokenizer.bos_token_id not in ids[1:]


def test_unknown_word_is_named(model: HookedModel) -> None:
    with pytest.raises(DPCInterpError, match="vocabulary lacks 'xylophone'"):
        encode_question(model, "Tom has 9 xylophone .")


def test_questions_must_fit_the_context(model: HookedModel) -> None:
    """The longest question, 5 virtual tokens and the new tokens may fill the context exactly."""
    problems = [
        Problem("story", text, "", "9", 1, name) for name, text in (("a", "Tom has 9 apples."), ("b", QUESTION))
    ]
    longest = len(encode_question(model, QUESTION))
    room = model.cfg.n_ctx - 5 - longest
    encoded = encode_questions(model, problems, n_virtual=5, max_new_tokens=room)
    assert [ids.tolist() for ids in encoded] == [encode_question(model, p.question).tolist() for p in problems]
    with pytest.raises(ContextLengthError, match=f"{model.cfg.n_ctx + 1} positions"):
        encode_questions(model, problems, n_virtual=5, max_new_tokens=room + 1)


def test_rationale_is_text_and_stop_token(model: HookedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    ids = encode_rationale(model, "9 + 8 = 17\n#### 17").tolist()
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids[:-1]) == "9 + 8 = 17\n#### 17"


def test_loss_mask_by_hand() -> None:
    """Rows of 2 + 2 and 1 + 3 tokens, padded to 5 positions."""
    expected = [[False, False, True, True, False], [False, True, True, True, False]]
    assert loss_mask([2, 1], [4, 4], 5).tolist() == expected
    assert torch.equal(loss_mask([3], [3], 4), torch.zeros(1, 4, dtype=torch.bool))
