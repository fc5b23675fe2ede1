"""The command line: options come from signatures and dataclasses, and bad input ends in one line and exit code 2."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import dpc_interp as dpc
from dpc_interp import cli
from dpc_interp.analysis.options import Options
from dpc_interp.study_call import LoadOptions, StudyCall


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    return int(end.value.code or 0)


@pytest.mark.parametrize("command", ["study", "plan", "figures", "verdicts", "evaluate", "tune", "check"])
def test_help_names_the_arguments(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"dpc-interp {command}" in text
    assert "--model" in text


def test_help_of_options_is_that_of_the_dataclass(capsys: pytest.CaptureFixture[str]) -> None:
    run(["evaluate", "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--gamma FLOAT percentage of entries of smallest magnitude" in text
    assert f"[default: {Options.gamma}]" in text
    assert "--batch-size INT maximum number of questions decoded together." in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "no-such-model"], "no-such-model"),
        (["evaluate", "reasoner", "reasoner/stroy", "story"], "unknown prompt 'reasoner/stroy'"),
        (["evaluate", "reasoner", "smollm2-135m/story", "story"], "this model needs [n_virtual, 128]"),
        (["evaluate", "reasoner", "reasoner/story", "no.jsonl"], "no.jsonl"),
        (["evaluate", "reasoner", "reasoner/story", "story", "--gamma", "101"], "gamma"),
        (
            ["evaluate", "reasoner", "reasoner/story", "story", "--gama", "1"],
            "Unknown option: --gama.",
        ),
        (["study", "reasoner", "--problems", "story"], 'Command "study" parameter --prompts requires'),
        (["study", "--config", "no.yaml"], "there is no file no.yaml; give the YAML file"),
        (["report", "no-such-folder"], "no-such-folder holds no study"),
        (["figures", "--model", "gpt-9"], "unknown model"),
        (["figures", "--tasks", "stroy"], "unknown task of reasoner 'stroy'"),
    ],
)
def test_bad_input_ends_in_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    line = capsys.readouterr().err.splitlines()[-1]  # after progress bars
    assert line.startswith("dpc-interp: ")
    assert message in line


def test_a_prompt_is_tuned_checked_and_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mine"
    small = ["--n", "20", "--n-virtual-tokens", "4", "--max-steps", "2"]
    assert run(["tune", "reasoner", "story", str(folder), *small]) == 0
    assert dpc.load_prompt(folder).vectors.shape == (4, 128)
    assert run(["check", "reasoner", "--prompt", str(folder)]) == 0
    assert "reasoner passed 8 checks" in capsys.readouterr().out
    quick = ["--n", "4", "--batch-size", "4", "--max-new-tokens", "20"]
    assert run(["evaluate", "reasoner", str(folder), "story", *quick]) == 0
    assert "pt" in capsys.readouterr().out


CALL = StudyCall(
    prompts=["reasoner/story/seed0", "reasoner/story/seed1"],
    problems=["mine.jsonl"],
    validation=["other.jsonl"],
    n=30,
    load=LoadOptions(dtype="bfloat16"),
    options=Options(
        gamma=5,
        deep=[4, 5],
        stop_strings=("\n\n", "Q: ü"),
        template=dpc.QuestionFormat("Q: {question}\nA:"),
    ),
    run=dpc.RunConfig(out="here", batch_size=7, progress=False),
    sizes=dpc.ControlSizes(n_causal=3),
)


def parsed(arguments: list[str]) -> tuple[str, StudyCall]:
    _, given, *_ = cli.app.parse_args(["study", *arguments], exit_on_error=False, print_error=False)
    return given.arguments["model"], given.arguments["which"]


def test_the_settings_that_a_study_writes_are_read_again(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    CALL.write("reasoner", file)
    model, call = parsed(["--config", str(file)])
    assert model == "reasoner"
    assert replace(call, run=replace(call.run, out=str(call.run.out))) == CALL
    assert file.read_text().startswith(f"# dpc-interp {dpc.__version__}; again: dpc-interp study --config {file}\n")


def test_the_command_line_takes_precedence_over_settings(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    CALL.write("reasoner", file)
    model, call = parsed(["other", "--config", str(file), "--gamma", "3", "--prompts", "one"])
    assert (model, call.options.gamma, call.prompts, call.n) == ("other", 3, ["one"], 30)


def test_unknown_settings_end_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("model: reasoner\nprompts: [reasoner/story]\nproblems: [story]\ngama: 3\n")
    assert run(["study", "--config", str(file)]) == 2
    assert capsys.readouterr().err.startswith('dpc-interp: Unknown option: "[gama]" from ')


@pytest.mark.parametrize("file", sorted(Path(__file__).parents[1].glob("studies/*.yaml")), ids=lambda file: file.stem)
def test_study_files_of_the_repository_are_read(file: Path) -> None:
    model, call = parsed(["--config", str(file)])
    assert call.folder(model) == Path("studies") / file.stem
    assert all(prompt.startswith(("adapters/", "studies/")) for prompt in call.prompts)


def test_a_plan_is_printed_and_sizes_that_fit_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--n", "4", "--n-validation", "4", "--batch-size", "4", "--minutes", "900"]
    assert run(["plan", "reasoner", "--prompts", "reasoner/story", "--problems", "story", *few]) == 0
    text = capsys.readouterr().out
    assert "| story | answers | 1 |" in text
    assert text.splitlines()[-1] == "With these options of study: --n-sinks 4 --n-causal 4 --n-sweep 4 --n-heads 4"


def test_a_report_is_written_of_the_study_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    CALL.write("reasoner", tmp_path / "study.yaml")
    assert run(["report", str(tmp_path)]) == 2
    assert "holds no study; give the folder" in capsys.readouterr().err
    (tmp_path / "runs").mkdir()
    opened = []

    def open_study(call: StudyCall, model: str) -> SimpleNamespace:
        opened.append((model, call.n, call.options.gamma, call.folder(model)))
        return SimpleNamespace(report=lambda file: file)

    monkeypatch.setattr(StudyCall, "open", open_study)
    assert run(["report", str(tmp_path)]) == 0
    assert opened == [("reasoner", 30, 5, tmp_path)], "not the folder that it was written to"
    assert capsys.readouterr().out == f"wrote {tmp_path / 'report.html'}\n"
