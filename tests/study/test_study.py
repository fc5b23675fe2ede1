"""A study of a model, problems and prompts of one's own; that of bundled ones is tested in `test_commands.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest

import dpc_interp as dpc
from dpc_interp import DPCInterpError, Problem, SoftPrompt, Study
from dpc_interp.evaluation.evaluate import evaluate
from dpc_interp.evaluation.methods import METHODS
from dpc_interp.models.hooked import HookedModel
from dpc_interp.study import evaluated

SIZES = {"n_sinks": 2, "n_causal": 1, "n_sweep": 2, "n_heads": 1}


def own(problems: list[Problem]) -> list[Problem]:
    """The problems as a task that has no validation split."""
    return [replace(problem, task="mine", id=f"mine-{k}") for k, problem in enumerate(problems)]


@pytest.fixture(scope="module")
def prompts(prompt: SoftPrompt) -> list[SoftPrompt]:
    return [replace(prompt, name=f"mine/seed{seed}", vectors=prompt.vectors * (1 + seed)) for seed in range(2)]


@pytest.fixture(scope="module")
def made(
    model: HookedModel, prompts: list[SoftPrompt], few_sweeps: None, tmp_path_factory: pytest.TempPathFactory
) -> Study:
    """A model of random weights, which answers nothing right."""
    problems = own(dpc.load_problems("story", n=20, seed=3))
    folder = tmp_path_factory.mktemp("study")
    return dpc.study(model, problems, prompts, folder, max_new_tokens=12, progress=False, **SIZES)


def test_every_prompt_is_evaluated_on_what_is_not_held_out(made: Study) -> None:
    assert made.tasks == ["mine"]
    assert [results.prompt for results in made.results] == ["mine/seed0", "mine/seed1"]
    for results in made.results:
        assert results.instances.groupby("method").size().to_dict() == dict.fromkeys(METHODS, 14)
        assert not results.instances["correct"].any()


def test_without_right_answers_nothing_is_testable_and_nothing_crashes(made: Study, tmp_path: Path) -> None:
    captions = made.figures(tmp_path).read_text()
    assert "fig3_accumulation: the peak leaves out the sinks (0)" in captions
    assert "fig7_cooccurrence: not drawn: every validation answer has the same outcome" in captions
    assert (tmp_path / "fig3_accumulation.pdf").exists()
    controls = made.control_figures(tmp_path).read_text()
    assert "triggers: not measured: " in controls
    table = pd.read_csv(tmp_path / "verdicts.csv").set_index("claim")
    assert (table.loc[["C2", "C4", "C5"], "verdict"] == "not testable").all()
    assert made.verdicts()["claim"].tolist() == table.index.tolist()
    assert made.regime()["n"].tolist() == [14]
    report = made.report(tmp_path / "report.html").read_text()
    assert "<strong>fig3_accumulation</strong>: the peak leaves out" in report
    assert "fig7_cooccurrence</strong>: not drawn: " in report


def test_finished_parts_are_read(made: Study, model: HookedModel, prompts: list[SoftPrompt]) -> None:
    folder = made._settings.folder
    made.peaks()
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.parquet")}
    assert before
    problems = own(dpc.load_problems("story", n=20, seed=3))
    again = dpc.study(model, problems, prompts, folder, max_new_tokens=12, progress=False, **SIZES)
    for new, old in zip(again.results, made.results, strict=True):
        pd.testing.assert_frame_equal(new.instances, old.instances)
    pd.testing.assert_frame_equal(again.peaks(), made.peaks())
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*.parquet")} == before


def test_a_figure_is_drawn_in_a_notebook(made: Study) -> None:
    figure = made.figure("accumulation")
    assert isinstance(figure, plt.Figure)
    with pytest.raises(DPCInterpError, match=r"unknown figure 'layers'; known: case, "):
        made.figure("layers")
    with pytest.raises(DPCInterpError, match=r"unknown task 'story'; known: mine"):
        made.figure("accumulation", "story")
    plt.close("all")


def test_an_ablation_uses_the_problems_of_the_study(made: Study) -> None:
    rows = made.ablation({"gamma": [0, 50]}, methods=["always"])
    assert rows["gamma"].tolist() == [0, 50]
    assert (rows["n"] == 14).all()


def test_prompts_may_differ_between_tasks(model: HookedModel, prompts: list[SoftPrompt]) -> None:
    by_task = {"story": prompts[:1], "rule": prompts}
    made = dpc.study(model, ["story", "rule"], by_task, n=2, n_validation=2, progress=False)
    assert [len(task.prompts) for task in made._tasks] == [1, 2]
    assert repr(made) == f"Study({str(model.cfg.model_name)!r}, tasks=['story', 'rule'], 3 prompts)"
    with pytest.raises(DPCInterpError, match="there is no prompt for 'rule'; prompts are given for: story"):
        dpc.study(model, ["story", "rule"], {"story": prompts}, n=2, n_validation=2)
    with pytest.raises(DPCInterpError, match="there are prompts for 'rule', but no problems; tasks: story"):
        dpc.study(model, "story", {"story": prompts, "rule": prompts}, n=2, n_validation=2)


def test_the_call_is_shown_with_what_differs_from_the_defaults(model: HookedModel, prompts: list[SoftPrompt]) -> None:
    made = dpc.study(model, "story", prompts, n=2, n_validation=2, gamma=5, batch_size=3, n_sweep=7)
    assert "'story', [<mine/seed0>, <mine/seed1>], n=2, n_validation=2, gamma=5, batch_size=3, n_sweep=7)" in made.call
    named = dpc.study("reasoner", "story", "reasoner/story", n=2, n_validation=2)
    assert named.call == "dpc.study('reasoner', 'story', 'reasoner/story', n=2, n_validation=2)"


def test_problems_may_be_rows(model: HookedModel, prompts: list[SoftPrompt]) -> None:
    rows = [{"question": f"{k} + {k}?", "answer": k} for k in range(20)]
    columns = {name: [row[name] for row in rows] for name in ("question", "answer")}
    for given in (rows, pd.DataFrame(rows), [rows], columns):
        made = dpc.study(model, given, prompts, progress=False)
        (task,) = made._tasks
        assert (made.tasks, len(task.test), len(task.validation)) == (["mine"], 14, 6)
        assert ", <20 problems of mine>, [" in made.call


def test_a_task_without_a_trigger_warns(model: HookedModel, prompts: list[SoftPrompt]) -> None:
    made = dpc.study(model, "story", prompts[0], n=2, n_validation=2, max_new_tokens=4, progress=False)
    with pytest.warns(UserWarning, match="story, mine/seed0: every validation answer has the same outcome, so that no"):
        assert len(made.results) == 1


def test_a_report_says_what_does_not_fit_in_memory(
    made: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **keywords: object) -> object:
        raise error

    monkeypatch.setattr(made, "case", fail)
    error: Exception = MemoryError()
    assert "not shown: it does not fit in memory" in made.report(tmp_path / "report.html").read_text()
    error = RuntimeError("a fault")
    with pytest.raises(RuntimeError, match="a fault"):
        made.report(tmp_path / "report.html")


def test_a_case_that_is_not_there(made: Study) -> None:
    instance = made.instances()["instance"][0]
    with pytest.raises(DPCInterpError, match="unknown prompt 'typo'; known: mine/seed0, mine/seed1"):
        made.case(instance, prompt="typo")


OTHER = {"head_reduction": "sum_of_abs", "exclude_sink": False, "deep": [0], "alpha_offset": 0.1}
"""Options that differ from the defaults."""


@pytest.fixture(scope="module")
def unstored(model: HookedModel, prompts: list[SoftPrompt], few_sweeps: None) -> tuple[Study, list[str]]:
    """A study without a folder, whose controls have run, and the names of the prompts in the order of evaluations."""
    calls: list[str] = []

    def record(model: HookedModel, problems: object, prompt: SoftPrompt, *args: object, **keywords: object) -> object:
        calls.append(prompt.name)
        return evaluate(model, problems, prompt, *args, **keywords)

    problems = own(dpc.load_problems("story", n=8, seed=3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluated, "evaluate", record)
        made = dpc.study(model, problems, prompts, progress=False, max_new_tokens=12, **OTHER, **SIZES)
        made.controls()
        assert len(made.results) == 2
    return made, calls


def test_without_a_folder_every_prompt_is_evaluated_once(unstored: tuple[Study, list[str]]) -> None:
    """Twice where the first evaluation finds that no trigger can be calibrated."""
    made, calls = unstored
    assert calls == ["mine/seed0"] * 2 + ["mine/seed1"] * 2
    for control in made.controls()["mine"]:
        assert control.evaluated.results.instances.groupby("method").size().nunique() == 1, "no answer twice"


def test_options_reach_the_controls(
    unstored: tuple[Study, list[str]], model: HookedModel, prompts: list[SoftPrompt]
) -> None:
    made, _ = unstored
    control = made.controls()["mine"][0]
    assert control.evaluated.sinks == ()
    runs = dpc.drop_empty_rationales(model, control.evaluated.results.runs)
    keywords = {"head_reduction": "sum_of_abs", "conditions": ["trained"], "progress": False}
    expected = dpc.sink_controls(model, runs[:2], prompts[0], **keywords)
    drawn = control.sinks[control.sinks["condition"] == "trained"].reset_index(drop=True)
    pd.testing.assert_frame_equal(drawn, expected, check_dtype=False)
    direct = dpc.control_peaks(control.sinks, layers=control.evaluated.shallow, exclude_sink=False)
    pd.testing.assert_frame_equal(control.peaks, direct)
    causal = dpc.causal_edges(model, runs[:1], prompts[0], options=dpc.Options(**OTHER), progress=False)
    pd.testing.assert_frame_equal(control.effects["knockouts"], causal.knockouts, check_dtype=False)


def test_bad_input_raises_before_any_work(model: HookedModel, prompts: list[SoftPrompt]) -> None:
    with pytest.raises(DPCInterpError, match='engine="processes" loads the model in each process; load it with'):
        dpc.study(model, "story", prompts, n=2, engine="processes")
    with pytest.raises(DPCInterpError, match="load_options are for a model that is given by its name"):
        dpc.study(model, "story", prompts, load_options={"dtype": "bfloat16"})
    narrow = SoftPrompt(prompts[0].vectors[:, :8], "narrow")
    with pytest.raises(DPCInterpError, match=r"this model needs \[n_virtual, 16\]"):
        dpc.study(model, "story", narrow, n=2)
    with pytest.raises(DPCInterpError, match="two of the prompts are named 'mine/seed0'"):
        dpc.study(model, "story", [prompts[0], prompts[0]], n=2)
    with pytest.raises(DPCInterpError, match="unknown option 'gama'"):
        dpc.study(model, "story", prompts, gama=3)
