"""The command line: options come from signatures and dataclasses, and bad input ends in one line and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

import dpc_interp as dpc
from dpc_interp import cli
from dpc_interp.analysis.options import Options


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    return int(end.value.code or 0)


@pytest.mark.parametrize("command", ["study", "figures", "verdicts", "evaluate", "tune", "check"])
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
