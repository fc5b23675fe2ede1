"""The arguments of a study: what its folder keeps, and how validation files are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import dpc_interp as dpc
from dpc_interp import study_call
from dpc_interp.study_call import LoadOptions, StudyCall

CALL = StudyCall(
    prompts=["reasoner/story/seed0"],
    problems=["mine.jsonl"],
    n=30,
    load=LoadOptions(dtype="bfloat16"),
    run=dpc.RunConfig(out="here", batch_size=7),
)


def test_a_folder_keeps_the_settings_of_its_study(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    CALL.write("reasoner", file)
    replace(CALL, run=replace(CALL.run, batch_size=1), sizes=dpc.ControlSizes()).check_resumes("reasoner", file)
    other = replace(CALL, n=31, options=replace(CALL.options, gamma=4))
    with pytest.raises(dpc.DPCInterpError, match=r"was given another n, gamma before; give another --out"):
        other.check_resumes("reasoner", file)


def test_files_are_written_by_their_full_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").touch()
    record = CALL.record("reasoner")
    assert record["problems"] == [str(tmp_path / "mine.jsonl")]
    assert record["prompts"] == CALL.prompts, "names"


def test_another_precision_is_refused_too(tmp_path: Path) -> None:
    CALL.write("reasoner", tmp_path / "study.yaml")
    with pytest.raises(dpc.DPCInterpError, match="was given another model, dtype before"):
        replace(CALL, load=LoadOptions()).check_resumes("other", tmp_path / "study.yaml")


def test_the_folder_is_named_by_the_model_unless_one_is_given() -> None:
    assert CALL.folder("meta-llama/Llama") == Path("here")
    assert replace(CALL, run=dpc.RunConfig()).folder("meta-llama/Llama") == Path("studies/Llama")


def test_validation_files_calibrate_in_the_order_of_the_tasks_without_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mine", "other"):
        rows = "\n".join(f'{{"question": "{name} {k}?", "answer": "{k}"}}' for k in range(9))
        (tmp_path / f"{name}.jsonl").write_text(rows)
    given: dict[str, Any] = {}
    monkeypatch.setattr(
        study_call, "study", lambda *args, **keywords: given.update(keywords) or object.__new__(dpc.Study)
    )
    mine, other = str(tmp_path / "mine.jsonl"), str(tmp_path / "other.jsonl")
    call = replace(CALL, problems=["story", mine], validation=[other], n_validation=4)
    call.open("reasoner")
    (held_out,) = given["sample"].validation.values()
    assert [problem.question for problem in held_out] == [f"other {k}?" for k in range(4)]
    assert given["load_options"] == {"device": None, "dtype": "bfloat16", "backend": None}
    assert given["run"].out == Path("here/runs")
    replace(call, validation=[other, mine]).open("reasoner")
    assert {task: held[0].question for task, held in given["sample"].validation.items()} == {
        "story": "other 0?",
        "mine": "mine 0?",
    }
    with pytest.raises(dpc.DPCInterpError, match="3 files for 2 tasks; give one for each, or one for each of the 1"):
        replace(call, validation=[other, mine, other]).open("reasoner")
