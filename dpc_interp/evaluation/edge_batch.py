"""A batch of transcripts under knock-out: which edges are candidates, in which order, and what happens without some.

Candidates are the edges from virtual tokens to the late half of each rationale; a change is the value with edges
removed less the value without (METHOD 7.3).
"""

from __future__ import annotations

import random

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from dpc_interp.analysis.saliency import HeadReduction, flow_pass
from dpc_interp.analysis.segments import Segments
from dpc_interp.corruption.knockout import knocked_out
from dpc_interp.lm.generation import Transcript
from dpc_interp.lm.hooked import HookedModel
from dpc_interp.lm.likelihood import likelihood
from dpc_interp.lm.soft_prompt import SoftPrompt

Order = NDArray[np.intp]


class EdgeBatch:
    """A batch of transcripts, the saliency of their candidate edges, and what the model makes of it without some."""

    def __init__(
        self,
        model: HookedModel,
        runs: list[Transcript],
        layouts: list[Segments],
        prompt: SoftPrompt,
        exclude_sink: bool,
        how: HeadReduction,
    ):
        self.model, self.runs, self.layouts, self.prompt = model, runs, layouts, prompt
        maps: dict[int, Tensor] = {}

        def keep(layer: int, flow: Float[Tensor, "batch dest src"]) -> None:
            maps[layer] = flow[:, :, : prompt.n_virtual].cpu()

        sequences = [torch.cat([run.question_tokens, run.generated_tokens]) for run in runs]
        flow_pass(model, sequences, [len(r.question_tokens) for r in runs], prompt.vectors, keep, head_reduction=how)
        self.flow: Float[Tensor, "batch layer pos n_virtual"] = torch.stack(
            [maps[layer] for layer in range(model.cfg.n_layers)], dim=1
        )
        self.candidates: Bool[Tensor, "batch pos n_virtual"] = torch.zeros_like(self.flow[:, 0], dtype=torch.bool)
        for row, layout in enumerate(layouts):
            first, stop = layout.rationale
            self.candidates[row, first + (stop - first) // 2 : stop, int(exclude_sink) :] = True
        self.plain = likelihood(model, runs, prompt)

    def edges(self, row: int, layers: tuple[int, ...]) -> tuple[Tensor, NDArray[np.float64]]:
        """Indices [edge, (layer, pos, n_virtual)] of a row's candidates at `layers`, and their flow."""
        at = torch.zeros(self.flow.shape[1:], dtype=torch.bool)
        at[list(layers)] = self.candidates[row]
        return at.nonzero(), self.flow[row][at].double().numpy()

    def without(self, chosen: list[Tensor]) -> list[dict[str, float]]:
        """The changes where each row lacks its `chosen` edges [edge, (layer, pos, n_virtual)]."""
        width = self.flow.shape[2]
        masks: dict[int, Tensor] = {}
        for row, edges in enumerate(chosen):
            for layer in edges[:, 0].unique().tolist():
                of_layer = edges[edges[:, 0] == layer]
                mask = masks.setdefault(layer, torch.zeros(len(chosen), width, width, dtype=torch.bool))
                mask[row, of_layer[:, 1], of_layer[:, 2]] = True
        with knocked_out(self.model, masks):
            found = likelihood(self.model, self.runs, self.prompt)
        changes = []
        for row, layout in enumerate(self.layouts):
            span = slice(*layout.answer)
            before, after = (torch.exp(-nll[row, span].double().sum()).item() for nll in (self.plain.nll, found.nll))
            differs = bool((found.predicted[row, span] != self.plain.predicted[row, span]).any())
            answered = layout.answer[1] > layout.answer[0]
            changes.append(
                {
                    "loss_change": float(found.loss[row] - self.plain.loss[row]),
                    "answer_probability_change": after - before if answered else float("nan"),
                    "answer_changed": float(differs) if answered else float("nan"),
                }
            )
        return changes

    def named(self, row: int) -> dict[str, object]:
        """The columns that tell the instance."""
        return {"instance": self.runs[row].problem.id, "correct": self.runs[row].correct}

    def orders(self, row: int, flow: NDArray[np.float64], n_draws: int, seed: int) -> dict[tuple[str, int], Order]:
        """Edges by saliency, in reverse, and in random orders, which are the instance's own."""
        falling = np.argsort(-flow, kind="stable")
        orders = {("saliency", 0): falling, ("reverse", 0): falling[::-1].copy()}
        for draw in range(n_draws):
            shuffled = list(range(len(flow)))
            random.Random(f"{seed}/{self.runs[row].problem.id}/{draw}").shuffle(shuffled)
            orders["random", draw] = np.array(shuffled)
        return orders
