"""Bad input gives one clear line, before any work is done and with nothing left behind.

No type is checked here but by the package's own code, as a user runs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

import dpc_interp as dpc
from dpc_interp import CorruptionPlan, DPCInterpError, Problem, SoftPrompt, Transcript
from dpc_interp.lm.lens import HookedTransformer

pytestmark = pytest.mark.usefixtures("untyped")
TOKENS = torch.tensor([1, 40, 51, 62, 9, 13])


@dataclass
class World:
    """What the cases call upon."""

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
            pytest.fail("the body of a refused context must not run")

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

    def asked(self, question: str) -> list[Problem]:
        return [replace(self.problems[0], question=question)]


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
    "no problems asked for": ("n is 0", lambda w: dpc.load_problems("story", n=0)),
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
    "unknown word": ("lacks 'zebras'", lambda w: dpc.generate(w.model, w.asked("Tom has 9 zebras."), w.prompt)),
    "unknown sign": ("lacks '\\\\t'", lambda w: dpc.generate(w.model, w.asked("Tom has\t9 apples."), w.prompt)),
    "long unknown word": (
        "vocabulary lacks",
        lambda w: dpc.generate(w.model, w.asked("Tom has 9 " + "zebra" * 90), w.prompt),
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
    "sink alone": (
        "no virtual token is left",
        lambda w: dpc.peaks(
            dpc.analyse(w.model, [w.written("buys 8")], SoftPrompt(w.prompt.vectors[:1]), progress=False).accumulation
        ),
    ),
    "no tuning tokens": ("n_virtual_tokens is 0", lambda w: dpc.tune_prompt(w.model, w.problems, 0)),
    "one tuning problem": ("too few problems", lambda w: dpc.tune_prompt(w.model, w.problems[:1], progress=False)),
    "diverging tuning": (
        "not finite",
        lambda w: dpc.tune_prompt(w.model, w.problems, learning_rate=float("inf"), n_steps=5, progress=False),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_clear_line(request: pytest.FixtureRequest, world: World, case: str, unchanged) -> None:
    if case == "folder of another family":  # a bridge takes it
        request.getfixturevalue("needs_hooked")
    match, call = CASES[case]
    with unchanged(world.model), pytest.raises(DPCInterpError, match=match) as caught:
        call(world)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message.replace(str(world.folder), "")) < 240, message


def test_names_of_all_bundled_prompts_fit_one_line(prompt: SoftPrompt, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("dpc_interp.lm.soft_prompt.PROMPTS", tmp_path)
    for task in ("algebra", "choice", "rule", "story"):
        for seed in range(3):
            prompt.save_pretrained(tmp_path / "reasoner" / task / f"seed{seed}")
    with pytest.raises(DPCInterpError, match=r"reasoner/algebra.* reasoner/story") as caught:
        dpc.load_prompt("reasoner/stories")
    assert len(str(caught.value)) < 240
