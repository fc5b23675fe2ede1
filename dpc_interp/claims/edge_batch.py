"""A batch of transcripts under knock-out: candidate edges, their orders, and the changes when some are removed.

Candidates are the edges from virtual tokens to the late half of each rationale; a change is the value with edges
removed minus the value with all edges (docs/method.md, section 7.3).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from dpc_interp.analysis.options import HeadReduction
from dpc_interp.analysis.recorder import whole_map
from dpc_interp.analysis.saliency import saliency_pass
from dpc_interp.analysis.segments import Segments
from dpc_interp.generation.likelihood import likelihood
from dpc_interp.generation.transcript import Transcript
from dpc_interp.interventions.knockout import knocked_out
from dpc_interp.models.hooked import HookedModel
from dpc_interp.prompts.soft_prompt import SoftPrompt

Order = NDArray[np.intp]
"""A permutation of the candidate edges of a row."""


class EdgeBatch:
    """A batch of transcripts with the saliency of their candidate edges.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`.
        runs: transcripts generated with `prompt`, one a row.
        segments: of the same transcripts.
        prompt: the soft prompt.
        sinks: virtual tokens without candidate edges.
        head_reduction: see `saliency`.

    Attributes:
        flow: I from each virtual token, [batch, layer, pos, n_virtual].
        candidates: True at the candidate edges, [batch, pos, n_virtual]; the same at every layer.
        intact: the likelihood of the transcripts with all edges.
    """

    def __init__(
        self,
        model: HookedModel,
        runs: list[Transcript],
        segments: list[Segments],
        prompt: SoftPrompt,
        sinks: Sequence[int],
        head_reduction: HeadReduction,
    ):
        self.model, self.runs, self.segments, self.prompt = model, runs, segments, prompt
        layers = saliency_pass(
            model,
            [run.tokens for run in runs],
            [len(run.question_tokens) for run in runs],
            prompt.vectors,
            lambda blocks: whole_map(blocks)[:, :, : prompt.n_virtual].cpu(),
            head_reduction=head_reduction,
        ).layers
        self.flow: Float[Tensor, "batch layer pos n_virtual"] = torch.stack(layers, dim=1)
        self.candidates: Bool[Tensor, "batch pos n_virtual"] = torch.zeros_like(self.flow[:, 0], dtype=torch.bool)
        for row, row_segments in enumerate(segments):
            self.candidates[row, slice(*row_segments.late)] = True
        self.candidates[:, :, list(sinks)] = False
        self.intact = likelihood(model, runs, prompt)

    def edges(self, row: int, layers: tuple[int, ...]) -> tuple[Int[Tensor, "edge 3"], NDArray[np.float64]]:
        """The candidate edges of one row at some layers.

        Args:
            row: of the batch.
            layers: whose edges are listed.

        Returns:
            (layer, position, virtual token) of each edge, and the flow along each edge.
        """
        mask = torch.zeros(self.flow.shape[1:], dtype=torch.bool)
        mask[list(layers)] = self.candidates[row]
        return mask.nonzero(), self.flow[row][mask].double().numpy()

    def changes_without(self, removed: list[Int[Tensor, "_ 3"]]) -> list[dict[str, float]]:
        """Read the transcripts again without some edges.

        Args:
            removed: for each row the edges to remove, (layer, position, virtual token) each.

        Returns:
            One row per transcript: loss_change, answer_probability_change, answer_changed; see the frame `knockouts` of
            `schema.py`.
        """
        n_positions = self.flow.shape[2]
        masks: dict[int, Tensor] = {}
        for row, edges in enumerate(removed):
            for layer in edges[:, 0].unique().tolist():
                layer_edges = edges[edges[:, 0] == layer]
                no_edges = torch.zeros(len(removed), n_positions, n_positions, dtype=torch.bool)
                masks.setdefault(layer, no_edges)[row, layer_edges[:, 1], layer_edges[:, 2]] = True
        with knocked_out(self.model, masks):
            cut = likelihood(self.model, self.runs, self.prompt)
        changes = []
        for row, segments in enumerate(self.segments):
            span = slice(*segments.answer)
            before, after = (torch.exp(-nll[row, span].double().sum()).item() for nll in (self.intact.nll, cut.nll))
            differs = bool((cut.predicted[row, span] != self.intact.predicted[row, span]).any())
            has_answer = segments.answer[1] > segments.answer[0]
            changes.append(
                {
                    "loss_change": float(cut.loss[row] - self.intact.loss[row]),
                    "answer_probability_change": after - before if has_answer else float("nan"),
                    "answer_changed": float(differs) if has_answer else float("nan"),
                }
            )
        return changes

    def instance_columns(self, row: int) -> dict[str, object]:
        """The columns `instance` and `correct` of one row of the batch."""
        return {"instance": self.runs[row].problem.id, "correct": self.runs[row].correct}

    def orders(
        self, row: int, flow: NDArray[np.float64], n_draws: int, seed: int | str
    ) -> dict[tuple[str, int], Order]:
        """Orders in which the edges of one row are removed.

        Args:
            row: of the batch.
            flow: along each edge.
            n_draws: number of random orders.
            seed: seed of the random orders, which depend on it and the id of the instance only.

        Returns:
            (name, draw) -> the order, for `saliency` (largest flow first), `reverse` and `random`.
        """
        descending = np.argsort(-flow, kind="stable")
        orders = {("saliency", 0): descending, ("reverse", 0): descending[::-1].copy()}
        for draw in range(n_draws):
            shuffled = list(range(len(flow)))
            random.Random(f"{seed}/{self.runs[row].problem.id}/{draw}").shuffle(shuffled)
            orders["random", draw] = np.array(shuffled)
        return orders
