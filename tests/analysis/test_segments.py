"""Segments of handwritten texts, and properties of the segments of any text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders
from tokenizers.decoders import ByteFallback, Fuse, Strip
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.decoders import Replace as ReplaceDecoder
from tokenizers.decoders import Sequence as DecoderSequence
from tokenizers.models import BPE, WordLevel
from tokenizers.normalizers import Replace
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from dpc_interp import Problem, Segments, Transcript
from dpc_interp.analysis.segments import _token_ends, segment, token_strings

N_VIRTUAL = 3
TWO_STEPS = "buys 8: 9 + 8 = 17\nloses 2: 17 - 2 = 15\n#### 15"


@pytest.fixture
def pieces(written: Callable[..., Transcript], tokenizer) -> Callable[..., dict[str, object]]:
    """The text of each segment and step of a written text."""

    def cut(text: str, stopped: bool = True) -> dict[str, object]:
        run = written(text, stopped=stopped)
        layout = segment(run, tokenizer, N_VIRTUAL)
        tokens = torch.cat([torch.full((N_VIRTUAL,), 0), run.question_tokens, run.generated_tokens])
        assert layout.length == len(tokens)
        shown = {name: tokenizer.decode(tokens[a:b]) for name, (a, b) in layout.spans().items()}
        assert shown.pop("prompt") == "<pad>" * N_VIRTUAL
        assert shown.pop("question") == tokenizer.decode(run.question_tokens)
        return shown | {"steps": [tokenizer.decode(tokens[a:b]) for a, b in layout.steps]}

    return cut


@pytest.mark.parametrize("stopped", [True, False])
@pytest.mark.parametrize(
    ("text", "rationale", "answer", "steps"),
    [
        (
            TWO_STEPS,
            "buys 8: 9 + 8 = 17\nloses 2: 17 - 2 = 15\n",
            "#### 15",
            ["buys 8: 9 + 8 = 17\n", "loses 2: 17 - 2 = 15\n"],
        ),
        ("buys 8: 9 + 8 = 17\nloses 2:", "buys 8: 9 + 8 = 17\nloses 2:", "", ["buys 8: 9 + 8 = 17\n", "loses 2:"]),
        ("9 + 8 = 17.", "9 + 8 = 17.", "", ["9 + 8 = 17."]),
        (
            "Tom has 9. Tom buys 8. How many?",
            "Tom has 9. Tom buys 8. How many?",
            "",
            ["Tom has 9.", " Tom buys 8.", " How many?"],
        ),
        ("9 + 8 = 17\nThe answer is B", "9 + 8 = 17\n", "The answer is B", ["9 + 8 = 17\n"]),
        ("x = 4\n\\boxed{4}", "x = 4\n", "\\boxed{4}", ["x = 4\n"]),
        ("#### 15", "", "#### 15", []),
        ("\n\n#### 15", "", "\n\n#### 15", []),
        ("\n", "", "\n", []),
        ("9 + 8 = 17\n#### 1\n#### 15", "9 + 8 = 17\n", "#### 1\n#### 15", ["9 + 8 = 17\n"]),
        (
            "9 + 8 = 17\n7 * 2 = 14. The answer is 14",
            "9 + 8 = 17\n7 * 2 = 14.",
            " The answer is 14",
            ["9 + 8 = 17\n", "7 * 2 = 14."],
        ),
        ("9 - 2 = 7. The answer is B.", "9 - 2 = 7.", " The answer is B.", ["9 - 2 = 7."]),
        ("9 + 8 = 17\n#### 17\n", "9 + 8 = 17\n", "#### 17\n", ["9 + 8 = 17\n"]),
        ("9 + 8 = 17\n\n17 - 2 = 15", "9 + 8 = 17\n\n17 - 2 = 15", "", ["9 + 8 = 17\n\n", "17 - 2 = 15"]),
    ],
)
def test_by_hand(pieces, text: str, rationale: str, answer: str, steps: list[str], stopped: bool) -> None:
    assert pieces(text, stopped) == {"rationale": rationale, "answer": answer, "steps": steps}


def test_positions_by_hand(written: Callable[..., Transcript], tokenizer) -> None:
    """3 virtual tokens, the question, steps of 10 and 11 tokens (with line breaks), 3 answer tokens, the stop token."""
    run = written(TWO_STEPS)
    n_question = len(run.question_tokens)
    first = N_VIRTUAL + n_question
    one = len(tokenizer("buys 8: 9 + 8 = 17\n", add_special_tokens=False).input_ids)
    two = len(tokenizer("loses 2: 17 - 2 = 15\n", add_special_tokens=False).input_ids)
    assert segment(run, tokenizer, N_VIRTUAL) == Segments(
        prompt=(0, 3),
        question=(3, first),
        rationale=(first, first + one + two),
        answer=(first + one + two, first + one + two + 3),
        steps=((first, first + one), (first + one, first + one + two)),
        length=first + one + two + 4,
    )
    assert (one, two) == (10, 11)


def test_a_character_of_several_tokens_counts_once(written: Callable[..., Transcript]) -> None:
    """With a tokenizer whose tokens are bytes, a single token may be no character."""
    tokenizer = byte_level_tokenizer()
    lines = ["pays 8 €: 9 € - 8 € = 1 €\n", "naïve: 1 + 1 = 2\n", "#### 2"]
    run = replace(
        written(TWO_STEPS), generated_tokens=torch.tensor(tokenizer("".join(lines), add_special_tokens=False).input_ids)
    )
    layout = segment(run, tokenizer, N_VIRTUAL)
    assert [stop - start for start, stop in (*layout.steps, layout.answer)] == [len(line.encode()) for line in lines]


def byte_fallback_tokenizer() -> PreTrainedTokenizerFast:
    """As LLaMA-2 has it: characters without a token of their own, and line breaks, are written as their bytes."""
    characters = ["\u2581", *"abcdefghinrstTwz0123456789+-=#.*"]
    vocabulary = {
        token: i for i, token in enumerate(["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *characters])
    }
    by_bytes = Tokenizer(BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    by_bytes.normalizer = Replace(" ", "\u2581")
    by_bytes.decoder = DecoderSequence([ReplaceDecoder("\u2581", " "), ByteFallback(), Fuse(), Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=by_bytes, unk_token="<unk>")


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """As GPT-2 has it, without merges."""
    by_bytes = Tokenizer(BPE({character: i for i, character in enumerate(sorted(ByteLevel.alphabet()))}, []))
    by_bytes.pre_tokenizer, by_bytes.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    return PreTrainedTokenizerFast(tokenizer_object=by_bytes)


BYTE_TOKENIZERS = {"byte fallback": byte_fallback_tokenizer(), "byte level": byte_level_tokenizer()}


@pytest.mark.parametrize("kind", BYTE_TOKENIZERS)
@pytest.mark.parametrize(
    ("steps", "answer"),
    [
        (["€€\n", "3+4=7\n"], "####7"),
        (["3+4=7\n", "€€\n"], "####7"),
        (["\U0001f600\U0001f600\U0001f600 3\n", "\U0001f680 3+4=7 \U0001f680\n"], "#### 7"),
        (["日本語 3\n", "3+4=7\n", "価格 7\n"], "#### 7€"),
        (["€\n", "€\n", "3 €\n", "\n".join(["€€€"] * 30).replace("\n", " ") + "\n"], "#### 7"),
        (["7 * 2 = 14. "], "#### 14"),
        (["7 * 2 = 14 "], "#### 14"),
        (["a € 3 = 3. ", "b € 4 = 4. "], "The answer is €4."),
        (["שלום 3\n", "עולם 4\n"], "####\U0001f600"),
    ],
)
def test_borders_of_characters_of_several_tokens(
    written: Callable[..., Transcript], kind: str, steps: list[str], answer: str
) -> None:
    tokenizer = BYTE_TOKENIZERS[kind]
    ids = tokenizer("".join([*steps, answer]), add_special_tokens=False).input_ids
    run = replace(written(TWO_STEPS), generated_tokens=torch.tensor(ids))
    layout = segment(run, tokenizer, N_VIRTUAL)
    first = layout.rationale[0]
    pieces = [tokenizer.decode(ids[a - first : b - first]) for a, b in (*layout.steps, layout.answer)]
    assert pieces == [*steps, answer]


@pytest.mark.parametrize(
    ("answer", "follow_on"),
    [
        ("#### 17", "\nQuestion: 9 + 8 = 17\n#### 17"),
        ("#### 17", "\n\nQ: how many?\n#### 2"),
        ("The answer is B.", "\n\nProblem 2: 7 * 2 = 14\nThe answer is 14"),
        ("\\boxed{4}", "\n### Instruction\nadd"),
        ("\\boxed{4}", "<|im_start|>user\nadd"),
        ("#### 17\nThat is all.", ""),
    ],
)
@pytest.mark.parametrize("rationale", ["9 + 8 = 17\n", "Question: how many?\n9 + 8 = 17\n"])
def test_the_answer_ends_where_a_question_follows(
    written: Callable[..., Transcript], rationale: str, answer: str, follow_on: str
) -> None:
    tokenizer, text = BYTE_TOKENIZERS["byte level"], rationale + answer + follow_on
    ids = tokenizer(text, add_special_tokens=False).input_ids
    layout = segment(replace(written(TWO_STEPS), generated_tokens=torch.tensor(ids)), tokenizer, N_VIRTUAL)
    first = layout.rationale[0]
    assert [tokenizer.decode(ids[a - first : b - first]) for a, b in (layout.rationale, layout.answer)] == [
        rationale,
        answer,
    ]
    assert layout.length == first + len(text)


@pytest.mark.parametrize("kind", BYTE_TOKENIZERS)
@settings(max_examples=100, deadline=None, derandomize=True)
@given(text=st.text(alphabet="a3€é\U0001f600 \n", max_size=12), data=st.data())
def test_token_ends_never_decrease(kind: str, text: str, data: st.DataObject) -> None:
    """Also where bytes are missing, so that the text holds U+FFFD."""
    tokenizer = BYTE_TOKENIZERS[kind]
    ids = [i for i in tokenizer(text, add_special_tokens=False).input_ids if data.draw(st.integers(0, 4))]
    decoded = str(tokenizer.decode(ids))
    end = _token_ends(tokenizer, ids, decoded)
    ends = [end(k) for k in range(len(ids))]
    assert ends == sorted(ends)
    assert not ids or ends[-1] == len(decoded)


def test_step_of(written: Callable[..., Transcript], tokenizer) -> None:
    layout = segment(written(TWO_STEPS), tokenizer, N_VIRTUAL)
    start, stop = layout.rationale
    assert [layout.step_of(position) for position in range(start, stop)] == [0] * 10 + [1] * 11


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    ids=st.lists(st.integers(3, 250), min_size=0, max_size=40),
    breaks=st.lists(st.integers(0, 40)),
    stopped=st.booleans(),
)
def test_segments_and_steps_divide_every_text(tokenizer, ids: list[int], breaks: list[int], stopped: bool) -> None:
    (line_break,) = tokenizer("\n", add_special_tokens=False).input_ids
    (marker,) = tokenizer("####", add_special_tokens=False).input_ids
    for place in breaks:
        if place < len(ids):
            ids[place] = marker if place % 5 == 0 else line_break
    ids = ids + [tokenizer.eos_token_id] * stopped
    question = torch.tensor([tokenizer.bos_token_id, 40, 41])
    run = Transcript(
        Problem("story", "", "", "", 1, "x"), question, torch.tensor(ids, dtype=torch.long), "", None, False
    )
    layout = segment(run, tokenizer, N_VIRTUAL)
    spans = list(layout.spans().values())
    assert spans[0][0] == 0
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    assert spans[-1][1] == layout.length - stopped == N_VIRTUAL + 3 + len(ids) - stopped
    covered = [position for a, b in layout.steps for position in range(a, b)]
    assert covered == list(range(*layout.rationale))
    assert all(a < b for a, b in layout.steps)


def test_tokens_keep_their_spaces() -> None:
    """Also where a token alone is decoded without its space, as by the tokenizer of Llama-2."""
    words = {"<unk>": 0, "▁How": 1, "▁many": 2, "▁pens": 3, "?": 4}
    tokenizer = Tokenizer(WordLevel(words, "<unk>"))
    tokenizer.decoder = decoders.Metaspace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    assert fast.decode([2]) == "many"
    assert token_strings(fast, [1, 2, 3, 4]) == ["How", " many", " pens", "?"]
