"""fig1 to fig7: each figure is saved with the frame that it is drawn from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dpc_interp import plots, saliency_map
from dpc_interp.analysis.schema import round_significant
from dpc_interp.models.hooked import HookedModel
from dpc_interp.study.evaluated import EvaluatedPrompt
from dpc_interp.study.paper_figures import FIGURES, DrawFigures, fig1_case, fig2_saliency_maps


@pytest.fixture(scope="module")
def folder(study: EvaluatedPrompt, reasoner: HookedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "figures"
    captions = DrawFigures(study, folder)(reasoner)
    (folder / "captions.txt").write_text("\n".join(captions))
    return folder


def test_every_figure_has_its_files_and_caption(folder: Path) -> None:
    captions = (folder / "captions.txt").read_text().splitlines()
    assert [caption.split(":")[0] for caption in captions] == [draw.__name__ for draw in FIGURES.values()]
    for draw in FIGURES.values():
        assert {file.suffix for file in folder.glob(f"{draw.__name__}.*")} >= {".png", ".pdf"}


def test_cases_are_the_median_instances_of_their_kind(study: EvaluatedPrompt, folder: Path) -> None:
    instances = study.results.instances
    instruct, pt = (
        instances[instances["method"] == method].set_index("instance")["correct"] for method in ("instruct", "pt")
    )
    late_share = study.results.statistics.set_index("instance")["late_share"]
    long = {run.problem.id for run in study.results.runs if run.problem.n_steps >= 2}
    frame = pd.read_parquet(folder / "fig1_case.parquet")
    cases = frame.groupby("case")["instance"].unique()
    for case, holds in (
        ("right when instructed, wrong with the prompt", instruct & ~pt),
        ("wrong when instructed, right with the prompt", ~instruct & pt),
    ):
        (instance,) = cases[case]
        shares = late_share[[name for name in late_share.index if name in long and holds[name]]]
        assert instance in shares.index
        assert (shares < late_share[instance]).sum() <= len(shares) // 2
        assert (shares > late_share[instance]).sum() <= len(shares) // 2
        assert f"{case}: {holds.sum()} of 24" in (folder / "captions.txt").read_text()


def test_no_case_is_drawn_where_the_prompt_changes_no_answer(
    study: EvaluatedPrompt, reasoner: HookedModel, tmp_path: Path
) -> None:
    instances = study.results.instances
    pt = instances[instances["method"] == "pt"]
    unchanged = replace(study.results, instances=pd.concat([pt, pt.assign(method="instruct")]))
    with plots.style_context():
        caption = fig1_case(replace(study, results=unchanged), reasoner).save(tmp_path)
    assert "right when instructed, wrong with the prompt: 0 of 24" in caption
    assert "wrong when instructed, right with the prompt: 0 of 24" in caption
    assert pd.read_parquet(tmp_path / "fig1_case.parquet").empty


def test_no_map_is_drawn_where_no_answer_has_two_steps(
    study: EvaluatedPrompt, reasoner: HookedModel, tmp_path: Path
) -> None:
    others = [run.problem.id for run in study.results.runs if run.problem.n_steps != 2]
    statistics = study.results.statistics.loc[lambda frame: frame["instance"].isin(others)]
    with plots.style_context():
        part = replace(study, results=replace(study.results, statistics=statistics))
        fig2_saliency_maps(part, reasoner).save(tmp_path)
    assert pd.read_parquet(tmp_path / "fig2_saliency_maps.parquet").empty


def test_saliency_maps_are_means_over_the_layers(study: EvaluatedPrompt, reasoner: HookedModel, folder: Path) -> None:
    frame = pd.read_parquet(folder / "fig2_saliency_maps.parquet")
    runs = {run.problem.id: run for run in study.results.runs}
    layers = {"shallow": study.shallow, "deep": study.deep}
    assert {tuple(key) for key in frame[["outcome", "layers"]].drop_duplicates().to_numpy()} == {
        (outcome, depth) for outcome in ("right", "wrong") for depth in ("shallow", "deep")
    }
    for (outcome, depth), rows in frame.groupby(["outcome", "layers"]):
        run = runs[rows["instance"].iloc[0]]
        assert run.correct == (outcome == "right")
        assert run.problem.n_steps == 2
        expected = saliency_map(reasoner, run, study.prompt).values[list(layers[depth])].mean(0)
        drawn = expected[rows["destination"].tolist(), rows["source"].tolist()].numpy()
        np.testing.assert_allclose(rows["value"], drawn, rtol=1e-4, atol=1e-12)
        assert len(rows) == int((expected != 0).sum())


def test_layer_flow_is_that_of_whole_segments_from_the_prompt(study: EvaluatedPrompt, folder: Path) -> None:
    frame = pd.read_parquet(folder / "fig4_layer_flow.parquet")
    assert set(frame["source"]) == {"prompt"}
    assert frame["step"].isna().all()
    assert frame["instance"].nunique() == 24
    assert set(frame["layer"]) == set(range(study.results.analysis.n_layers))
    correct = study.results.statistics.set_index("instance")["correct"]
    assert (frame["correct"] == frame["instance"].map(correct)).all()
    effects = pd.read_csv(folder / "fig4_layer_flow_effects.csv")
    layers = effects.groupby(["destination", "scale"])["layer"].agg(list)
    assert layers.to_dict() == {
        (destination, scale): list(range(study.results.analysis.n_layers))
        for destination in ("question", "rationale")
        for scale in ("log", "linear")
    }


def test_step_flow_is_that_of_the_deep_layers_into_steps(study: EvaluatedPrompt, folder: Path) -> None:
    frame = pd.read_parquet(folder / "fig5_step_flow.parquet")
    assert set(frame["layer"]) == set(study.deep)
    assert frame["step"].notna().all()
    assert frame["step"].max() == max(run.problem.n_steps for run in study.results.runs) - 1


def test_statistics_are_saved_once_for_two_figures(study: EvaluatedPrompt, folder: Path) -> None:
    stored = pd.read_parquet(folder / "trigger_statistics.parquet")
    pd.testing.assert_frame_equal(stored, round_significant(study.results.statistics), check_dtype=False)
    assert not (folder / "fig6_trigger.parquet").exists()
    assert not (folder / "fig7_cooccurrence.parquet").exists()
    threshold = f"late_share > {study.results.rule.threshold:.3f}"
    assert threshold in (folder / "captions.txt").read_text()


def test_cooccurrence_counts_every_instance(folder: Path) -> None:
    table = pd.read_csv(folder / "fig7_cooccurrence_table.csv")
    assert table["n"].sum() == 24
