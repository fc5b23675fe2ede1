"""Flow between segments: the mean of I_l over the causal pairs of a destination and a source segment (METHOD 2).

For each layer two products with 0/1 matrices give all of it at once: rows of `Groups.destinations` and columns of
`Groups.sources` mark the positions of each segment and step,

    flow[d, s] = (D I_l S)[d, s] / pairs[d, s]        pairs = D C S, C the strictly causal pairs

so nothing of size layers x heads x T x T is ever held.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from dpc_interp.analysis.segments import Segments

SEGMENTS = ("prompt", "question", "rationale", "answer")
WHOLE = -1
"""`step` and `source_step` of a row about a whole segment."""


@dataclass(frozen=True)
class Groups:
    """Named sets of positions for a batch: whole segments, the rationale's steps, question and rationale as one."""

    names: tuple[tuple[str, int], ...]
    member: Float[Tensor, "batch group pos"]
    pairs: Float[Tensor, "batch group group"]
    n_virtual: int

    @classmethod
    def of(cls, segments: list[Segments], width: int, device: torch.device) -> Groups:
        """Mark the positions of a batch of `width` positions."""
        n_steps = max(len(s.steps) for s in segments)
        names = [(name, WHOLE) for name in SEGMENTS] + [("rationale", k) for k in range(n_steps)] + [("readers", WHOLE)]
        member = torch.zeros(len(segments), len(names), width)
        for row, layout in enumerate(segments):
            spans = [*layout.borders().values(), *layout.steps]
            for group, (start, stop) in enumerate(spans):
                member[row, group, start:stop] = 1
            member[row, -1, layout.question[0] : layout.rationale[1]] = 1
        causal = torch.ones(width, width).tril(-1)
        pairs = member @ causal @ member.mT
        return cls(tuple(names), member.to(device), pairs.to(device), segments[0].prompt[1])

    def reduce(self, flow: Float[Tensor, "batch dest src"]) -> tuple[Tensor, Tensor, Tensor]:
        """One layer: flow [batch, group, group], accumulation [batch, n_virtual], prompt flow by token [batch, dest].

        Where `flow` has fewer destinations than positions, they are the last ones.
        """
        by_destination = self.member[:, :, -flow.shape[1] :] @ flow
        between = by_destination @ self.member.mT / self.pairs.clamp(min=1)
        readers = self.member[:, -1].sum(-1, keepdim=True).clamp(min=1)
        accumulation = by_destination[:, -1, : self.n_virtual] / readers
        from_prompt = flow[:, :, : self.n_virtual].mean(-1)
        return between, accumulation, from_prompt

    def frame(self, between: Float[Tensor, "batch layer group group"], instances: list[str]) -> pd.DataFrame:
        """The `flow` frame: every pair of groups that has a causal pair."""
        batch, n_layers = between.shape[:2]
        wanted = torch.tensor([[self._reported(d, s) for s in range(len(self.names))] for d in range(len(self.names))])
        present = (self.pairs.cpu() > 0) & wanted
        row, layer, dest, src = (present[:, None].expand(batch, n_layers, -1, -1)).nonzero(as_tuple=True)
        names = pd.DataFrame(self.names, columns=["segment", "step"])
        source, destination = names.iloc[src.numpy()], names.iloc[dest.numpy()]
        return pd.DataFrame(
            {
                "instance": pd.Series(instances).iloc[row.numpy()].to_numpy(),
                "layer": layer.numpy(),
                "source": source["segment"].to_numpy(),
                "source_step": source["step"].to_numpy(),
                "destination": destination["segment"].to_numpy(),
                "step": destination["step"].to_numpy(),
                "value": between.cpu()[row, layer, dest, src].numpy(),
            }
        )

    def _reported(self, dest: int, src: int) -> bool:
        """Whether a pair is a row of the frame: segments with segments, steps with prompt, question and steps."""
        (to, to_step), (source, source_step) = self.names[dest], self.names[src]
        if "readers" in (to, source) or to == "prompt":
            return False
        if to_step == WHOLE:
            return source_step == WHOLE
        return source in ("prompt", "question") or source_step != WHOLE
