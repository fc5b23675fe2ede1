"""The page of verdicts shows what the frame says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from dpc_interp import DPCInterpError, Results, regime, verdicts, verdicts_markdown
from dpc_interp.claims.verdict_page import write_page

NAN = float("nan")
VERDICTS = pd.DataFrame(
    [
        ("m", "story", "C1", "holds", "", 2.5, 2.1, 2.9, 2.0, "above", False, 0.001, 0.01, 2.0, 500, 3, "rule", "fig3"),
        (
            "m",
            "choice",
            "C1",
            "holds",
            "",
            2.2,
            2.0001,
            2.4,
            2.0,
            "above",
            False,
            0.049,
            0.5,
            2.0,
            400,
            3,
            "rule",
            "fig3",
        ),
        ("m", "rule", "C1", "fails", "", 1.5, 1.2, 1.8, 2.0, "above", True, 0.02, 0.2, 2.0, 300, 2, "rule", "fig3"),
        ("m", "rule", "C5", "not testable", "few", *[NAN] * 3, 0.0, "above", False, *[NAN] * 3, 0, 0, "rule", "tab1"),
        ("m", "story", "C5", "undecided", "", 0, -0.01, 0.01, 0, "above", True, 0.9, 1.0, 2.0, 500, 3, "rule", "tab1"),
    ],
    columns=[
        *("model", "task", "claim", "verdict", "reason", "effect", "low", "high", "null"),
        *("side", "excludes_paper", "p", "p_holm", "df", "n", "n_prompts", "rule", "figure"),
    ],
)


def test_a_claim_is_one_line_with_its_tasks_by_verdict() -> None:
    lines = verdicts_markdown(VERDICTS).splitlines()
    (line,) = [line for line in lines if line.startswith("- C1.")]
    assert line == (
        "- C1. Information accumulates in few prompt tokens, in shallow layers. Rule: holds where the mean log of the "
        "peak ratio of the shallow layers over its chance level is above 0. It **holds** on story, choice; **fails** "
        "on rule. See fig3_accumulation."
    )
    assert not any(line.startswith("- C2.") for line in lines), "the frame has no C2"


def test_tables_keep_the_order_of_tasks_and_star_what_remains_after_holm() -> None:
    lines = verdicts_markdown(VERDICTS).splitlines()
    start = lines.index("| task | C1 | C5 |")
    assert lines[start + 2 : start + 5] == [
        "| story | holds* | undecided |",
        "| choice | holds | nan |",
        "| rule | fails | not testable |",
    ]


def test_numbers_are_rounded_and_missing_ones_are_dashes() -> None:
    lines = verdicts_markdown(VERDICTS).splitlines()
    assert "| story | C1 | holds* | 2.500 [2.100, 2.900] | above 2 | – | 0.001 | 0.01 | 2.0 | 500 | 3 | fig3 |" in lines
    assert "| rule | C5 | not testable | not measured | above 0 | few | – | – | – | 0 | 0 | tab1 |" in lines
    (row,) = [line for line in lines if line.startswith("| story | C5 |")]
    assert "| above 0 | smaller than the paper's |" in row


def test_a_ranking_below_chance_is_called_reversed() -> None:
    frame = VERDICTS.assign(claim=VERDICTS["claim"].replace("C1", "C4"))
    lines = verdicts_markdown(frame).splitlines()
    (row,) = [line for line in lines if line.startswith("| rule | C4 | fails |")]
    assert "| reversed |" in row


def test_models_have_sections_in_the_order_of_the_frame() -> None:
    both = pd.concat([VERDICTS.assign(model="second"), VERDICTS.assign(model="first")])
    text = verdicts_markdown(both)
    assert text.index("## second") < text.index("## first")


def test_the_page_of_a_folder_joins_the_verdicts_of_its_models(
    world: Callable[..., list[Results]], tmp_path: Path
) -> None:
    frames = [verdicts(world(seed, true=true), model=model) for seed, true, model in ((7, True, "a"), (1, False, "b"))]
    for frame, model in zip(frames, ("a", "b"), strict=True):
        (tmp_path / model).mkdir()
        frame.to_csv(tmp_path / model / "verdicts.csv", index=False)
    page = write_page(tmp_path)
    assert page == tmp_path / "VERDICTS.md"
    text = page.read_text()
    assert text == verdicts_markdown(pd.concat(frames))
    row = frames[0].set_index("claim").loc["C4 wrong"]
    assert f"{row['effect']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" in text
    with pytest.raises(DPCInterpError, match="or make verdicts first"):
        write_page(tmp_path / "a")


def test_the_regime_of_a_model_opens_its_section(world: Callable[..., list[Results]]) -> None:
    results = world(7, true=True)
    text = verdicts_markdown(verdicts(results, model="a"), {"a": regime(results)})
    assert text.index("| task | bare % |") < text.index("- C1.")
    assert "The paper is about a model that reasons when it is asked to" in text


def test_the_regime_is_found_by_the_name_of_the_model_not_of_the_folder(
    world: Callable[..., list[Results]], tmp_path: Path
) -> None:
    results = world(7, true=True)
    (tmp_path / "figures").mkdir()
    verdicts(results, model="mine").to_csv(tmp_path / "figures" / "verdicts.csv", index=False)
    regime(results).to_csv(tmp_path / "figures" / "regime.csv", index=False)
    assert "| task | bare % |" in write_page(tmp_path).read_text()


def test_a_failed_equivalence_says_on_which_side(world: Callable[..., list[Results]]) -> None:
    frame = verdicts(world(1, true=False), model="a")  # `always` fixes half of the wrong answers
    lines = verdicts_markdown(frame).splitlines()
    (row,) = [line for line in lines if line.startswith("| story | C5 little | fails |")]
    assert "| gains |" in row
    loses = frame.assign(effect=-frame["effect"])
    assert any(
        "| C5 little | fails |" in line and "| loses |" in line for line in verdicts_markdown(loses).splitlines()
    )
