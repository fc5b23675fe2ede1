"""Invalid input gives one clear line before any work is done, and leaves the model and stored runs unchanged.

Type hints are not checked here, so that the errors are those that users see.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import dpc_interp as dpc
from dpc_interp import CorruptionPlan, DPCInterpError, Problem, SoftPrompt, Transcript
from dpc_interp.execution.store import RunStore, SharedStore
from dpc_interp.models.lens import HookedTransformer

pytestmark = pytest.mark.usefixtures("untyped")
STORED = pd.DataFrame({"instance": ["a", "b"], "value": [1, 2]})
RULE = dpc.TriggerRule("late_share", 0.5)
TOKENS = torch.tensor([1, 40, 51, 62, 9, 13])


@dataclass
class World:
    """The objects that the cases use."""

    model: HookedTransformer
    prompt: SoftPrompt
    problems: list[Problem]
    written: Callable[..., Transcript]
    folder: Path

    def vectors(self, *shape: int, fill: float = 0.1) -> SoftPrompt:
        return SoftPrompt(torch.full(shape, fill))

    def run(self, prompt: SoftPrompt, n_tokens: int = 6) -> None:
        with dpc.prompted(self.model, prompt) as forward:
            forward(torch.ones(1, n_tokens, dtype=torch.long))

    def corrupt(self, plan: CorruptionPlan) -> None:
        with dpc.corrupted(self.model, self.prompt, plan):
            pytest.fail("the body of an invalid context must not run")

    def analyse(self, *runs: Transcript, **options: object) -> dpc.Analysis:
        return dpc.analyse(self.model, runs, self.prompt, progress=False, **options)

    def adapter(self, **config: object) -> str:
        self.prompt.save_pretrained(self.folder / "adapter")
        file = self.folder / "adapter" / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | config))
        return str(self.folder / "adapter")

    def jsonl(self, text: str) -> str:
        (self.folder / "mine.jsonl").write_text(text)
        return str(self.folder / "mine.jsonl")

    def model_folder(self, text: str) -> str:
        (self.folder / "config.json").write_text(text)
        return str(self.folder)

    def problems_asking(self, question: str) -> list[Problem]:
        return [replace(self.problems[0], question=question)]

    def evaluate(self, methods: Sequence[str] = ("pt",), **changes: Any) -> dpc.Results:
        arguments = {"problems": self.problems, "prompt": self.prompt, "rule": RULE, "progress": False}
        return dpc.evaluate(self.model, methods=methods, **(arguments | changes))

    def ablate(self, **changes: Any) -> object:
        arguments = {"tasks": self.problems, "prompts": self.prompt, "methods": ["always"], "progress": False}
        return dpc.ablate(self.model, **(arguments | changes))

    def without_ray(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "ray", None)
            self.evaluate(engine="ray")

    @property
    def run_folder(self) -> Path:
        """The folder of a finished run that has one stage."""
        return self._stored(lambda folder: RunStore(folder, {"gamma": 20}))

    @property
    def grid_folder(self) -> Path:
        """The folder of an ablation that has one stage."""
        return self._stored(SharedStore)

    def _stored(self, make: Callable[[Path], RunStore]) -> Path:
        make(self.folder / "stored").stage("pt-0", lambda: STORED)
        return self.folder / "stored"

    def manifest(self, text: str) -> Path:
        (self.run_folder / "manifest.json").write_text(text)
        return self.folder / "stored"

    def with_version(self, folder: Path, name: str, version: str) -> Path:
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["versions"][name] = version
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    def without_manifest(self) -> Path:
        (self.run_folder / "manifest.json").unlink()
        return self.folder / "stored"

    def file(self) -> Path:
        (self.folder / "file").write_text("not a folder")
        return self.folder / "file"

    def old_layout(self) -> Path:
        (self.folder / "stored").mkdir()
        STORED.to_parquet(self.folder / "stored" / "pt-0.parquet")
        return self.folder / "stored"


@pytest.fixture
def world(model: HookedTransformer, prompt: SoftPrompt, problems: list[Problem], written, tmp_path: Path) -> World:
    return World(model, prompt, problems, written, tmp_path)


CASES: dict[str, tuple[str, Callable[[World], object]]] = {
    "wide prompt, run": ("needs \\[n_virtual, 16\\]", lambda w: w.run(w.vectors(5, 8))),
    "wide prompt, generate": ("\\[5, 32\\]", lambda w: dpc.generate(w.model, w.problems, w.vectors(5, 32))),
    "wide prompt, saliency": ("\\[5, 8\\]", lambda w: dpc.saliency(w.model, TOKENS, w.vectors(5, 8), 3)),
    "wide prompt, analyse": ("\\[5, 8\\]", lambda w: dpc.analyse(w.model, [w.written("buys 8")], w.vectors(5, 8))),
    "wide prompt, evaluate": ("\\[5, 8\\]", lambda w: dpc.evaluate(w.model, w.problems, w.vectors(5, 8))),
    "1-D prompt, run": ("soft prompt is \\[16\\]", lambda w: w.run(w.vectors(16))),
    "1-D prompt, generate": ("soft prompt is \\[16\\]", lambda w: dpc.generate(w.model, w.problems, w.vectors(16))),
    "1-D prompt, saliency": ("soft prompt is \\[16\\]", lambda w: dpc.saliency(w.model, TOKENS, torch.ones(16), 3)),
    "1-D prompt, corrupted": (
        "soft prompt is \\[16\\]",
        lambda w: dpc.corrupted(w.model, w.vectors(16), CorruptionPlan((1,))).__enter__(),
    ),
    "no virtual tokens": ("soft prompt is \\[0, 16\\]", lambda w: w.run(w.vectors(0, 16))),
    "NaN prompt, run": ("NaN or infinity", lambda w: w.run(w.vectors(5, 16, fill=float("nan")))),
    "infinite prompt, generate": (
        "NaN or infinity",
        lambda w: dpc.generate(w.model, w.problems, w.vectors(5, 16, fill=float("inf"))),
    ),
    "NaN prompt, saliency": (
        "NaN or inf",
        lambda w: dpc.saliency(w.model, TOKENS, torch.full((5, 16), float("nan")), 3),
    ),
    "NaN prompt, load": (
        "NaN or infinity",
        lambda w: (w.vectors(5, 16, fill=float("nan")).save_pretrained(w.folder), dpc.load_prompt(str(w.folder))),
    ),
    "long sequence, run": ("225 positions exceed .* of 224", lambda w: w.run(w.prompt, 220)),
    "long sequence, generate": (
        "exceed the model's context",
        lambda w: dpc.generate(w.model, w.problems, w.prompt, max_new_tokens=200),
    ),
    "long sequence, saliency": (
        "225 positions exceed",
        lambda w: dpc.saliency(w.model, torch.ones(220, dtype=torch.long), w.prompt, 3),
    ),
    "long sequence, analyse": ("exceed the model's context", lambda w: w.analyse(w.written("buys 8. " * 80))),
    "long sequence, tune": (
        "exceed the model's context",
        lambda w: dpc.tune_prompt(w.model, w.problems, n_virtual_tokens=210, progress=False),
    ),
    "no rationale, analyse": ("has an empty rationale", lambda w: w.analyse(w.written("#### 17"))),
    "no rationale, map": (
        "has an empty rationale",
        lambda w: dpc.saliency_map(w.model, w.written("#### 17"), w.prompt),
    ),
    "no text, map": (
        "has an empty rationale",
        lambda w: dpc.saliency_map(w.model, w.written("", stopped=False), w.prompt),
    ),
    "no rationale, saliency": ("n_question is 6 of 6", lambda w: dpc.saliency(w.model, TOKENS, w.prompt, 6)),
    "no question, saliency": ("n_question is 0 of 6", lambda w: dpc.saliency(w.model, TOKENS, w.prompt, 0)),
    "no rationale, tune": (
        "no rationale to learn from",
        lambda w: dpc.tune_prompt(w.model, [replace(p, rationale="") for p in w.problems], progress=False),
    ),
    "batch, saliency": ("tokens are \\[1, 6\\]", lambda w: dpc.saliency(w.model, TOKENS[None], w.prompt, 3)),
    "no runs": ("no runs to analyse", lambda w: w.analyse()),
    "one id twice": ("two problems have the id", lambda w: w.analyse(w.written("buys 8"), w.written("buys 9"))),
    "unknown target": ("unknown target 'golden'", lambda w: w.analyse(w.written("buys 8"), target="golden")),
    "unknown reduction": (
        "unknown head_reduction 'max'",
        lambda w: dpc.saliency(w.model, TOKENS, w.prompt, 3, head_reduction="max"),
    ),
    "unknown task": ("unknown task 'gsm'", lambda w: dpc.load_problems("gsm")),
    "unknown split": ("unknown split 'dev'", lambda w: dpc.load_problems("story", split="dev")),
    "no problems requested": ("n is 0", lambda w: dpc.load_problems("story", n=0)),
    "endless draw": ("no end", lambda w: dpc.load_problems("story", n=None)),
    "too many steps": ("1 to 4 steps", lambda w: dpc.load_problems("story", max_steps=5)),
    "no steps": ("1 to 4 steps", lambda w: dpc.load_problems("story", max_steps=0)),
    "unknown model": ("unknown model 'reasonr'", lambda w: dpc.load_model("reasonr")),
    "model that cannot be fetched": ("cannot be fetched", lambda w: dpc.load_model("pythia-14m")),
    "folder without a model": ("no config.json", lambda w: dpc.load_model(str(w.folder))),
    "folder of another family": (
        "is a 'bloom' model",
        lambda w: dpc.load_model(w.model_folder('{"model_type": "bloom"}')),
    ),
    "folder without weights": ("cannot be read", lambda w: dpc.load_model(w.model_folder('{"model_type": "llama"}'))),
    "broken config": ("not JSON", lambda w: dpc.load_model(w.model_folder('{"model_type": "llama"'))),
    "unknown prompt": ("unknown prompt 'reasoner/stories'", lambda w: dpc.load_prompt("reasoner/stories")),
    "prefix-tuning adapter": ("PREFIX_TUNING adapter", lambda w: dpc.load_prompt(w.adapter(peft_type="PREFIX_TUNING"))),
    "folder without an adapter": ("lacks adapter_config.json", lambda w: dpc.load_prompt(str(w.folder))),
    "unknown method": (
        "unknown method 'magic'",
        lambda w: dpc.evaluate(w.model, w.problems, w.prompt, ["dpc", "magic"]),
    ),
    "unknown statistic": (
        "unknown statistic 'magic'",
        lambda w: dpc.evaluate(w.model, w.problems, w.prompt, statistic="magic"),
    ),
    "no validation split": (
        "has no validation split",
        lambda w: dpc.evaluate(w.model, [replace(p, task="mine") for p in w.problems], w.prompt),
    ),
    "missing column": ("lacks the column 'answer'", lambda w: dpc.load_problems(w.jsonl('{"question": "a"}\n'))),
    "missing file": ("is not a file", lambda w: dpc.load_problems(str(w.folder / "none.jsonl"))),
    "unknown word": (
        "lacks 'zebras'",
        lambda w: dpc.generate(w.model, w.problems_asking("Tom has 9 zebras."), w.prompt),
    ),
    "unknown sign": (
        "lacks '\\\\t'",
        lambda w: dpc.generate(w.model, w.problems_asking("Tom has\t9 apples."), w.prompt),
    ),
    "long unknown word": (
        "vocabulary lacks",
        lambda w: dpc.generate(w.model, w.problems_asking("Tom has 9 " + "zebra" * 90), w.prompt),
    ),
    "plans without a prompt": (
        "needs a soft prompt",
        lambda w: dpc.generate(w.model, w.problems, plans=[CorruptionPlan()] * 20),
    ),
    "too few plans": (
        "one plan for each problem",
        lambda w: dpc.generate(w.model, w.problems, w.prompt, plans=[CorruptionPlan()]),
    ),
    "plan past the prompt": ("names token 5; the prompt has 5", lambda w: w.corrupt(CorruptionPlan((1, 5)))),
    "plan before the prompt": ("names token -1", lambda w: w.corrupt(CorruptionPlan((-1, 3)))),
    "gamma past 100": ("gamma is 101", lambda w: CorruptionPlan(gamma=101)),
    "negative mask": ("mask is -0.5", lambda w: CorruptionPlan(mask=-0.5)),
    "NaN mask": ("mask is nan", lambda w: CorruptionPlan(mask=float("nan"))),
    "prompt of the sink only": (
        "no virtual token is left",
        lambda w: dpc.accumulation_peaks(
            dpc.analyse(w.model, [w.written("buys 8")], SoftPrompt(w.prompt.vectors[:1]), progress=False).accumulation
        ),
    ),
    "no tuning tokens": ("n_virtual_tokens is 0", lambda w: dpc.tune_prompt(w.model, w.problems, 0)),
    "one tuning problem": ("too few problems", lambda w: dpc.tune_prompt(w.model, w.problems[:1], progress=False)),
    "diverging tuning": (
        "not finite",
        lambda w: dpc.tune_prompt(w.model, w.problems, learning_rate=float("inf"), max_steps=5, progress=False),
    ),
}


CASES |= {
    "unknown engine": ("unknown engine 'spark'; known: local, processes, ray", lambda w: w.evaluate(engine="spark")),
    "unknown engine, ablate": ("unknown engine 'spark'", lambda w: w.ablate(engine="spark")),
    "workers of no engine": ('give engine="processes" or "ray"', lambda w: w.evaluate(n_workers=2)),
    "no workers": ("n_workers is 0", lambda w: w.evaluate(engine="ray", n_workers=0)),
    "no workers, ablate": ("n_workers is -1", lambda w: w.ablate(engine="ray", n_workers=-1)),
    "no Ray": ("pip install .dpc_interp\\[ray\\]", World.without_ray),
    "no batch, generate": ("batch_size is 0", lambda w: dpc.generate(w.model, w.problems, w.prompt, batch_size=0)),
    "no batch, evaluate": ("batch_size is 0", lambda w: w.evaluate(batch_size=0)),
    "no batch, ablate": ("batch_size is -4", lambda w: w.ablate(batch_size=-4)),
    "no shard, evaluate": ("shard_size is 0", lambda w: w.evaluate(shard_size=0)),
    "no shard, ablate": ("shard_size is 0", lambda w: w.ablate(shard_size=0)),
    "long question, evaluate": ("exceed the model's context", lambda w: w.evaluate(max_new_tokens=200)),
    "long question, ablate": ("exceed the model's context", lambda w: w.ablate(grid={"max_new_tokens": [8, 200]})),
    "unknown word, evaluate": ("lacks 'zebras'", lambda w: w.evaluate(problems=w.problems_asking("Tom has 9 zebras."))),
    "unknown word, ablate": ("lacks 'zebras'", lambda w: w.ablate(tasks=w.problems_asking("Tom has 9 zebras."))),
    "no new tokens": ("max_new_tokens is 0", lambda w: w.evaluate(max_new_tokens=0)),
    "no problems, evaluate": ("no problems to evaluate", lambda w: w.evaluate(problems=[])),
    "unknown criterion": ("unknown criterion 'magic'", lambda w: w.evaluate(criterion="magic")),
    "unknown target, evaluate": ("unknown target 'golden'", lambda w: w.evaluate(target="golden")),
    "unknown reduction, evaluate": ("unknown head_reduction", lambda w: w.evaluate(head_reduction="max")),
    "unknown replacement": ("unknown replacement 'zero'", lambda w: w.evaluate(replace="zero")),
    "unknown token": ("unknown token 'first'", lambda w: w.evaluate(token="first")),
    "token past the prompt": ("names token 9", lambda w: w.evaluate(token=9)),
    "no tokens": ("top_k is 0", lambda w: w.evaluate(top_k=0)),
    "too many tokens": ("top_k is 5", lambda w: w.evaluate(top_k=5)),
    "layer past the model": ("layer", lambda w: w.evaluate(deep=[7])),
    "no layers": ("the layer range 'shallow' is empty", lambda w: w.evaluate(shallow=[])),
    "gamma past 100, evaluate": ("gamma is 101", lambda w: w.evaluate(gamma=101)),
    "unknown knock-out": ("unknown knock_out 'here'", lambda w: w.evaluate(knock_out="here")),
    "knock-out of a mask": ("leave token, top_k, replace and mask", lambda w: w.evaluate(knock_out="deep", mask=0.5)),
    "moved rule": ("alpha_offset moves a calibrated", lambda w: w.evaluate(alpha_offset=0.1)),
    "context named as a method": ("is the name of a method", lambda w: w.evaluate(contexts={"dpc": unnamed})),
    "context without options": (
        "needs a repr that shows its options",
        lambda w: w.evaluate(contexts={"mine": unnamed}),
    ),
    "gold without a rationale": (
        "no written rationale",
        lambda w: w.evaluate(problems=[replace(w.problems[0], rationale=" ")], target="gold"),
    ),
    "unknown option, ablate": ("unknown option 'gama'", lambda w: w.ablate(grid={"gama": [10]})),
    "unknown option of all cells": ("unknown option 'gama'", lambda w: w.ablate(gama=10)),
    "option twice": ("gamma is in the grid and given", lambda w: w.ablate(grid={"gamma": [10]}, gamma=20)),
    "no values": ("no list of values for gamma", lambda w: w.ablate(grid={"gamma": []})),
    "unknown split, ablate": ("unknown split 'train'", lambda w: w.ablate(splits=["train"])),
    "unknown method, ablate": ("unknown method 'magic'", lambda w: w.ablate(methods=["magic"])),
    "one prompt twice": ("two of the prompts are named", lambda w: w.ablate(prompts=[w.prompt, w.prompt])),
    "wide prompt, ablate": ("\\[5, 8\\]", lambda w: w.ablate(prompts=w.vectors(5, 8))),
}
FOLDERS: dict[str, tuple[str, Callable[[World], object]]] = {
    "run of another gamma": ("another alpha_offset, .* more; choose another", lambda w: w.evaluate(out=w.run_folder)),
    "run in a grid's folder": ("holds the stages of an ablation", lambda w: w.evaluate(out=w.grid_folder)),
    "grid in a run's folder": ("holds a single run of evaluate", lambda w: w.ablate(out=w.run_folder)),
    "half a manifest": ("manifest.json is damaged", lambda w: w.evaluate(out=w.manifest('{"gamma": 1'))),
    "empty manifest": ("manifest.json is damaged", lambda w: w.ablate(out=w.manifest(""))),
    "manifest of another kind": ("manifest.json is damaged", lambda w: w.evaluate(out=w.manifest("[1, 2]"))),
    "manifest of an older package": (
        "holds a run of another version",
        lambda w: w.evaluate(out=w.manifest('{"gamma": 10, "model": "0f"}')),
    ),
    "run of another torch": (
        "another version of torch",
        lambda w: w.evaluate(out=w.with_version(w.run_folder, "torch", "1.0")),
    ),
    "grid of another dpc_interp": (
        "another version of dpc_interp",
        lambda w: w.ablate(out=w.with_version(w.grid_folder, "dpc_interp", "0.0.1")),
    ),
    "stages without a manifest": ("without a manifest.json", lambda w: w.evaluate(out=w.without_manifest())),
    "grid of an older layout": ("without a manifest.json", lambda w: w.ablate(out=w.old_layout())),
    "file as a folder": ("cannot be used", lambda w: w.evaluate(out=w.file())),
    "file as a folder, ablate": ("cannot be used", lambda w: w.ablate(out=w.file())),
    "folder under a file": ("cannot be used", lambda w: w.evaluate(out=w.file() / "run")),
    "folder that cannot be created": ("cannot be used", lambda w: w.evaluate(out="/proc/run")),
    "name too long": ("File name too long", lambda w: w.evaluate(out=w.folder / ("x" * 300))),
}


def unnamed(model: HookedTransformer) -> object:
    raise AssertionError("an invalid context must not be entered")


@pytest.mark.parametrize("case", FOLDERS)
def test_an_unusable_folder_gives_one_clear_line_and_is_not_changed(world: World, case: str, monkeypatch) -> None:
    """Nothing is generated, no partial file is left, and stored frames can be read."""
    for name in ("generate", "analyse"):
        monkeypatch.setattr(f"dpc_interp.evaluation.jobs.{name}", lambda *_, **__: pytest.fail("work was started"))
    match, call = FOLDERS[case]
    with pytest.raises(DPCInterpError, match=match) as caught:
        call(world)
    message = str(caught.value)
    assert "\n" not in message
    assert len(re.sub(r"/\S+", "", message)) < 240, message
    files = [path for path in world.folder.rglob("*") if path.is_file() and path.suffix == ".parquet"]
    assert all(pd.read_parquet(path).equals(STORED) for path in files)
    assert not list(world.folder.rglob(".partial*"))


@pytest.mark.parametrize("case", CASES)
def test_invalid_input_gives_one_clear_line(request: pytest.FixtureRequest, world: World, case: str, unchanged) -> None:
    if case == "folder of another family":  # a bridge can load it
        request.getfixturevalue("needs_hooked")
    match, call = CASES[case]
    with unchanged(world.model), pytest.raises(DPCInterpError, match=match) as caught:
        call(world)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message.replace(str(world.folder), "")) < 240, message


def test_names_of_all_bundled_prompts_fit_one_line(prompt: SoftPrompt, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("dpc_interp.prompts.soft_prompt.PROMPTS", tmp_path)
    for task in ("algebra", "choice", "rule", "story"):
        for seed in range(3):
            prompt.save_pretrained(tmp_path / "reasoner" / task / f"seed{seed}")
    with pytest.raises(DPCInterpError, match=r"reasoner/algebra.* reasoner/story") as caught:
        dpc.load_prompt("reasoner/stories")
    assert len(str(caught.value)) < 240
