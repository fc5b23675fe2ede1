"""Flow between segments: the mean of I_l over the causal pairs of two groups (docs/method.md, section 2).

For each layer, two products with 0/1 matrices give all flows at once. D marks the positions of each destination group
(segments and steps), S those of each source group:

    flow[d, s] = (D I_l S)[d, s] / pairs[d, s]        pairs = D C S, C the strictly causal pairs

so no tensor of size layers x heads x T x T is ever held. `tokens_frame` and `instances_frame` make the other two frames
of an analysed batch: rationale tokens in every layer, and instances.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dpc_interp.analysis.recorder import FlowBlock
from dpc_interp.analysis.schema import conform
from dpc_interp.analysis.segments import Segments, token_strings
from dpc_interp.generation.transcript import Transcript

SEGMENTS = ("prompt", "question", "rationale", "answer")
QUESTION_AND_RATIONALE = "question_and_rationale"


class ReducedFlow(NamedTuple):
    """One layer of saliency, reduced.

    Attributes:
        between: mean flow [batch, destination group, source group].
        accumulation: acc(j) [batch, n_virtual].
        into_question: acc(j) with the question alone as destination [batch, n_virtual].
        from_prompt: mean flow from the virtual tokens into each position [batch, dest].
        row_share: share of the flow into each position that comes from the virtual tokens [batch, dest].
    """

    between: Float[Tensor, "batch group group"]
    accumulation: Float[Tensor, "batch n_virtual"]
    into_question: Float[Tensor, "batch n_virtual"]
    from_prompt: Float[Tensor, "batch dest"]
    row_share: Float[Tensor, "batch dest"]


@dataclass(frozen=True)
class PositionGroups:
    """Named sets of positions of a batch: whole segments, rationale steps, and question and rationale together.

    Attributes:
        names: segment and step of each group; step None: the whole segment.
        member: 1 where a position belongs to a group.
        pairs: number of strictly causal pairs of two groups.
        n_virtual: virtual tokens in front of each row.
    """

    names: tuple[tuple[str, int | None], ...]
    member: Float[Tensor, "batch group pos"]
    pairs: Float[Tensor, "batch group group"]
    n_virtual: int

    @classmethod
    def from_segments(cls, segments: list[Segments], width: int, device: torch.device) -> PositionGroups:
        """Mark the positions of a batch that is `width` positions wide."""
        n_steps = max(len(s.steps) for s in segments)
        names: list[tuple[str, int | None]] = [(name, None) for name in SEGMENTS]
        names += [("rationale", k) for k in range(n_steps)] + [(QUESTION_AND_RATIONALE, None)]
        member = torch.zeros(len(segments), len(names), width, dtype=torch.float32)
        for row, segment in enumerate(segments):
            for group, (start, stop) in enumerate([*segment.spans().values(), *segment.steps]):
                member[row, group, start:stop] = 1
            member[row, -1, segment.question[0] : segment.rationale[1]] = 1
        causal = torch.ones(width, width, dtype=torch.float32).tril(-1)
        pairs = member @ causal @ member.mT
        return cls(tuple(names), member.to(device), pairs.to(device), segments[0].prompt[1])

    def reduce(self, blocks: Iterable[FlowBlock]) -> ReducedFlow:
        """Reduce one layer of saliency; a `Reduction`."""
        batch, _, n_positions = self.member.shape
        between = torch.zeros_like(self.pairs)
        accumulation, into_question = (self.member.new_zeros(batch, self.n_virtual) for _ in range(2))
        question = self.names.index(("question", None))
        from_prompt, in_all = (self.member.new_zeros(batch, n_positions) for _ in range(2))
        for dest, src, values in blocks:
            by_destination = self.member[:, :, dest] @ values
            between += by_destination @ self.member[:, :, src].mT
            prompt = slice(src.start, max(src.start, self.n_virtual))
            n_read = prompt.stop - prompt.start
            accumulation[:, prompt] += by_destination[:, -1, :n_read]
            into_question[:, prompt] += by_destination[:, question, :n_read]
            from_prompt[:, dest] = values[:, :, :n_read].sum(-1)
            in_all[:, dest] = values.sum(-1)
        n_destinations, n_question = (
            self.member[:, group].sum(-1, keepdim=True).clamp(min=1) for group in (-1, question)
        )
        return ReducedFlow(
            between / self.pairs.clamp(min=1),
            accumulation / n_destinations,
            into_question / n_question,
            from_prompt / max(1, self.n_virtual),
            from_prompt / in_all.clamp(min=torch.finfo(torch.float32).tiny),
        )

    def flow_frame(self, between: Float[Tensor, "batch layer group group"], instances: list[str]) -> pd.DataFrame:
        """The `flow` frame of a batch: every reported pair of groups that has a causal pair."""
        batch, n_layers = between.shape[:2]
        groups = range(len(self.names))
        reported = torch.tensor([[self._is_reported(d, s) for s in groups] for d in groups])
        present = (self.pairs.cpu() > 0) & reported
        row, layer, dest, src = (present[:, None].expand(batch, n_layers, -1, -1)).nonzero(as_tuple=True)
        segments = np.array([name for name, _ in self.names], dtype=object)
        steps = pd.array([step for _, step in self.names], dtype="Int64")
        return pd.DataFrame(
            {
                "instance": np.array(instances, dtype=object)[row.numpy()],
                "layer": layer.numpy(),
                "source": segments[src.numpy()],
                "source_step": steps[src.numpy()],
                "destination": segments[dest.numpy()],
                "step": steps[dest.numpy()],
                "value": between.cpu()[row, layer, dest, src].numpy(),
            }
        )

    def _is_reported(self, dest: int, src: int) -> bool:
        """Whether a pair is a row of the frame: segments with segments, steps with prompt, question and steps."""
        (destination, step), (source, source_step) = self.names[dest], self.names[src]
        if QUESTION_AND_RATIONALE in (destination, source) or destination == "prompt":
            return False
        if step is None:
            return source_step is None
        return source in ("prompt", "question") or source_step is not None


def tokens_frame(
    tokenizer: PreTrainedTokenizerBase,
    runs: list[Transcript],
    segments: list[Segments],
    from_prompt: Float[Tensor, "batch layer dest"],
    row_share: Float[Tensor, "batch layer dest"],
    nll: Float[Tensor, "batch pos"],
) -> pd.DataFrame:
    """The `tokens` frame, which has no rows without virtual tokens.

    Args:
        tokenizer: that decodes the tokens.
        runs: the transcripts of the batch.
        segments: of each transcript.
        from_prompt: mean flow from the virtual tokens into each position, over the virtual tokens too.
        row_share: share of the flow into each position that comes from the virtual tokens.
        nll: of each token, over the virtual tokens too.
    """
    n = np.array([segment.n_rationale_tokens for segment in segments])
    starts = np.array([segment.rationale[0] for segment in segments])
    late_starts = np.array([segment.late[0] for segment in segments])
    row = np.repeat(np.arange(len(runs)), n)
    position_in_rationale = np.arange(n.sum()) - np.repeat(n.cumsum() - n, n)
    position = starts[row] + position_in_rationale
    # after the last token of the question: some tokenizers decode a token by the one before it
    read = torch.cat([run.tokens[len(run.question_tokens) - 1 :][: k + 1] for run, k in zip(runs, n, strict=True)])
    texts = np.delete(np.array(token_strings(tokenizer, read.tolist()), dtype=np.object_), np.cumsum(n + 1) - n - 1)
    steps = [np.repeat(np.arange(len(s.steps)), [stop - start for start, stop in s.steps]) for s in segments]
    one_layer = pd.DataFrame(
        {
            "instance": np.array([run.problem.id for run in runs], dtype=np.object_)[row],
            "position": position_in_rationale,
            "token": texts,
            "step": np.concatenate(steps),
            "late": position >= late_starts[row],
            "nll": nll.numpy()[row, position],
        }
    )
    values, shares = from_prompt.numpy(), row_share.numpy()
    if not segments[0].prompt[1]:
        one_layer, row, position = one_layer.iloc[:0], row[:0], position[:0]
    n_layers = values.shape[1]
    frame = one_layer.take(np.tile(np.arange(len(one_layer)), n_layers)).reset_index(drop=True)
    frame["layer"] = np.repeat(np.arange(n_layers), len(one_layer))
    frame["value"] = values[row, :, position].T.ravel()
    frame["row_share"] = shares[row, :, position].T.ravel()
    return conform(frame, "tokens")


def instances_frame(runs: list[Transcript], segments: list[Segments], nll: Float[Tensor, "batch pos"]) -> pd.DataFrame:
    """The `instances` frame; arguments as in `tokens_frame`."""
    last_answer_token = [segment.answer[1] - 1 for segment in segments]  # an empty answer ends where the rationale does
    n_generated = torch.tensor([len(run.generated_tokens) for run in runs])
    frame = pd.DataFrame(
        {
            "instance": [run.problem.id for run in runs],
            "task": [run.problem.task for run in runs],
            "correct": [run.correct for run in runs],
            "n_steps": [run.problem.n_steps for run in runs],
            "n_rationale_tokens": [segment.n_rationale_tokens for segment in segments],
            "nll": (nll.sum(1) / n_generated).numpy(),
            "answer_nll": nll.numpy()[np.arange(len(runs)), last_answer_token],
        }
    )
    return conform(frame, "instances")
