"""Questions and rationales as token ids, and the mask of the tokens in the loss."""

from __future__ import annotations

from copy import copy, deepcopy

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from dpc_interp import DPCInterpError, Problem, QuestionFormat
from dpc_interp.errors import ContextLengthError
from dpc_interp.models.encoding import (
    as_question_format,
    encode_question,
    encode_questions,
    encode_rationale,
    for_problem,
    format_recipe,
    loss_mask,
    merged_format,
    tokenizer_start,
)
from dpc_interp.models.hooked import HookedModel
from dpc_interp.models.lens import HookedTransformer

QUESTION = "Tom has 9 apples. How many apples does Tom have now?"


def test_question_is_bos_text_and_line_break(model: HookedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    ids = encode_question(model, QUESTION).tolist()
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == QUESTION + "\n"
    assert tokenizer.bos_token_id not in ids[1:]


def test_unknown_words_are_named(model: HookedModel) -> None:
    with pytest.raises(DPCInterpError, match="vocabulary lacks 'xylophone'; use only"):
        encode_question(model, "Tom has 9 xylophone")
    with pytest.raises(DPCInterpError, match="vocabulary lacks 'xylophone', 'quartz'; use only"):
        encode_question(model, "Tom has 9 xylophone 8 quartz xylophone")


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


CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.content == 'refused' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def chatty(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A tokenizer with a chat template."""
    chatty = deepcopy(tokenizer)
    chatty.chat_template = CHAT_TEMPLATE
    return chatty


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (None, "Why?\n"),
        ("Question: {question}\nAnswer:", "Question: Why?\nAnswer:"),
        ("Q: $\\frac{1}{2}$ of {4}?\nA: {2}\n\nQ: {question}\nA:", "Q: $\\frac{1}{2}$ of {4}?\nA: {2}\n\nQ: Why?\nA:"),
        (str.upper, "WHY?"),
        ("chat", "<user>Why?<assistant>"),
        ("{question} {question}", "Why? Why?"),
    ],
)
def test_template_gives_the_text(template, text: str, chatty: PreTrainedTokenizerBase) -> None:
    assert QuestionFormat(template).text("Why?", chatty) == text


def test_a_question_with_braces_is_kept(chatty: PreTrainedTokenizerBase) -> None:
    assert QuestionFormat("{question}|").text(r"\frac{1}{2} {question}", chatty) == r"\frac{1}{2} {question}|"


def test_system_text_is_a_message_of_the_chat(chatty: PreTrainedTokenizerBase) -> None:
    assert QuestionFormat("chat", system="Be short.").text("Why?", chatty) == "<system>Be short.<user>Why?<assistant>"
    with pytest.raises(DPCInterpError, match=r"chat template refuses the messages \(System role not supported"):
        QuestionFormat("chat", system="refused").text("Why?", chatty)
    with pytest.raises(DPCInterpError, match='give template="chat"'):
        QuestionFormat("{question}", system="Be short.")


def test_bad_templates_are_refused(model: HookedModel) -> None:
    with pytest.raises(DPCInterpError, match=r'lacks "\{question\}"'):
        QuestionFormat("Question: {q}")
    with pytest.raises(DPCInterpError, match="no chat template"):
        encode_question(model, QUESTION, QuestionFormat("chat"))
    with pytest.raises(DPCInterpError, match="gives a int; let the function return a text"):
        encode_question(model, QUESTION, QuestionFormat(len))
    with pytest.raises(DPCInterpError, match="has no tokens"):
        encode_question(model, "", QuestionFormat(str, prepend_bos=False))
    with pytest.raises(DPCInterpError, match="contradicts"):
        as_question_format(QuestionFormat(prepend_bos=True), False)


def test_bos_is_the_choice_of_the_caller(model: HookedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    plain = tokenizer(QUESTION + "\n", add_special_tokens=False).input_ids
    assert encode_question(model, QUESTION, QuestionFormat(prepend_bos=False)).tolist() == plain
    assert encode_question(model, QUESTION, QuestionFormat(prepend_bos=True)).tolist() == [
        tokenizer.bos_token_id,
        *plain,
    ]
    twice = QuestionFormat("<bos>{question}\n", prepend_bos=True)
    assert encode_question(model, QUESTION, twice).tolist() == [tokenizer.bos_token_id, *plain], "not twice"


def test_a_tokenizer_that_adds_no_bos_is_left_so(model: HookedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """As GPT-2 and SmolLM2: they have a BOS, and never add it."""
    bare = deepcopy(tokenizer)
    bare.backend_tokenizer.post_processor = None
    changed = copy(model)
    # the setter of a bridge would reload the tokenizer with BOS
    setattr(changed, "tokenizer" if isinstance(model, HookedTransformer) else "_tokenizer", bare)
    assert tokenizer_start(bare) == []
    assert tokenizer_start(tokenizer) == [tokenizer.bos_token_id]
    assert encode_question(changed, QUESTION).tolist() == bare(QUESTION + "\n").input_ids
    assert encode_question(changed, QUESTION, QuestionFormat(prepend_bos=True))[0] == bare.bos_token_id


def test_call_comes_before_prompt_before_problem() -> None:
    problem = Problem("story", "q", "", "1", 1, template="problem {question}")
    recipe = {"template": "prompt {question}", "prepend_bos": True}
    call = as_question_format("call {question}")
    assert for_problem(merged_format(call, recipe), problem) == QuestionFormat("call {question}", None, True)
    assert for_problem(merged_format(None, recipe), problem) == QuestionFormat("prompt {question}", None, True)
    assert for_problem(merged_format(None, None), problem) == QuestionFormat("problem {question}")
    assert for_problem(merged_format(as_question_format(None, False), {}), problem).prepend_bos is False
    with pytest.raises(DPCInterpError, match="tuned with the function shout as template; give it as template="):
        merged_format(None, {"template_function": "shout"})


def test_recipe_holds_the_format() -> None:
    chat = QuestionFormat("chat", "Be short.", None)
    assert merged_format(None, format_recipe(chat)) == chat
    assert format_recipe(QuestionFormat(str.upper)) == {"template_function": "str.upper", "prepend_bos": None}
