"""Texts that were written elsewhere become transcripts with the tokens that the model would have written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dpc_interp import DPCInterpError, Problem, SoftPrompt, analyse, generate, load_transcripts, read_transcripts
from dpc_interp.models.hooked import HookedModel

TEXT = "buys 8: 9 + 8 = 17\n#### 17"
ROW = {"question": "Tom has 9 apples. Tom buys 8 apples.", "answer": "9 + 8 = 17\n#### 17"}


def write(folder: Path, rows: list[dict], name: str = "samples_mine.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


def test_own_texts_come_back_as_the_same_transcripts(model: HookedModel, problems: list[Problem], prompt) -> None:
    """Those of the bundled reasoner, whose tokenizer gives every text of its words back."""
    import dpc_interp as dpc

    reasoner, story = dpc.load_model("reasoner", device="cpu"), dpc.load_prompt("reasoner/story")
    runs = generate(reasoner, problems[:6], story, progress=False)
    again = read_transcripts(reasoner, problems[:6], [run.text for run in runs], prompt=story)
    for run, other in zip(runs, again, strict=True):
        assert other.generated_tokens.tolist() == run.generated_tokens.tolist()
        assert other.question_tokens.tolist() == run.question_tokens.tolist()
        assert (other.answer, other.correct, other.finished) == (run.answer, run.correct, True)
    assert analyse(reasoner, again, story, progress=False).flow.equals(
        analyse(reasoner, runs, story, progress=False).flow
    )


def test_texts_that_were_cut_off_have_no_stop_token(model: HookedModel, problems: list[Problem]) -> None:
    ended, cut = read_transcripts(model, problems[:2], [TEXT, TEXT], finished=[True, False])
    assert ended.generated_tokens.tolist()[:-1] == cut.generated_tokens.tolist()
    assert (ended.finished, ended.ends_with_stop, cut.finished, cut.ends_with_stop) == (True, True, False, False)


def test_a_template_is_part_of_the_question(model: HookedModel, problems: list[Problem]) -> None:
    plain, asked = (read_transcripts(model, problems[:1], [TEXT], template=t)[0] for t in (None, "{question} now\n"))
    assert len(asked.question_tokens) == len(plain.question_tokens) + 1


def test_texts_that_are_tokenised_to_others_are_named(model: HookedModel, problems: list[Problem]) -> None:
    texts = [TEXT, "xylophone 17", "  17", TEXT, "zebra", "giraffe"]
    names = [problems[k].id for k in (1, 2, 4)]
    with pytest.raises(
        DPCInterpError, match=f"4 of 6 texts back unchanged .'{names[0]}', '{names[1]}', '{names[2]}' and 1"
    ):
        read_transcripts(model, problems[:6], texts)


def test_numbers_must_agree(model: HookedModel, problems: list[Problem], prompt: SoftPrompt) -> None:
    with pytest.raises(DPCInterpError, match="got 1 texts for 2 problems"):
        read_transcripts(model, problems[:2], [TEXT])
    with pytest.raises(DPCInterpError, match="got 1 texts for 2 problems"):
        read_transcripts(model, problems[:2], TEXT)
    with pytest.raises(DPCInterpError, match="finished has 1 values"):
        read_transcripts(model, problems[:2], [TEXT, TEXT], finished=[True])
    with pytest.raises(DPCInterpError, match="exceed the model's context"):
        read_transcripts(model, problems[:1], [TEXT * 40], prompt=prompt)


def test_samples_of_lm_evaluation_harness(tmp_path: Path) -> None:
    sample = {"doc_id": 7, "doc": ROW, "target": ROW["answer"], "resps": [[TEXT]], "filtered_resps": ["17"]}
    (problem,), (text,) = load_transcripts(write(tmp_path, [sample]))
    assert (problem.id, problem.answer, problem.question, text) == ("doc-7", "17", ROW["question"], TEXT)


@pytest.mark.parametrize("column", ["text", "response", "completion", "output", "generated_text", "prediction"])
def test_rows_with_a_text(tmp_path: Path, column: str) -> None:
    problems, texts = load_transcripts(
        str(write(tmp_path, [{**ROW, column: TEXT}, {**ROW, column: "#### 1"}], "a.jsonl"))
    )
    assert texts == [TEXT, "#### 1"]
    assert [problem.answer for problem in problems] == ["17", "17"]
    assert len({problem.id for problem in problems}) == 2, "the same question twice"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "line 1, has no text"),
        ({"resps": [[TEXT, TEXT]]}, "has 2 texts in 'resps'; keep one"),
        ({"resps": [[TEXT], [TEXT]]}, "has 2 texts in 'resps'; keep one"),
        ({"text": 17}, "which is not a text"),
        ({"resps": [[-1.5]]}, "'-1.5' in 'resps', which is not a text"),
    ],
)
def test_rows_without_one_text_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(DPCInterpError, match=message):
        load_transcripts(write(tmp_path, [{**ROW, **changes}]))
