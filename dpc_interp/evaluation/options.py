"""The options of an evaluation, stored with its results: how flow is read, when the trigger fires, what is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from dpc_interp.analysis.accumulation import check_layers, deep_layers, shallow_layers
from dpc_interp.analysis.analyse import Analysis, Target
from dpc_interp.analysis.saliency import HeadReduction
from dpc_interp.analysis.trigger import Criterion, check_names
from dpc_interp.corruption.knockout import plan_knockout
from dpc_interp.corruption.plan import (
    CorruptionPlan,
    Replace,
    check_top_k,
    noise_seed,
    plan_corruption,
    plan_random,
)
from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.lm.hooked import HookedModel
from dpc_interp.lm.soft_prompt import PromptEdit, SoftPrompt
from dpc_interp.tasks.problems import Problem

KnockOut = Literal["nowhere", "shallow", "deep", "everywhere"]
"""Layers at which nothing that is written attends to the accumulation token, its vector left as it is."""
Corrupts = Literal["peak", "random", "mask only", "gamma only"]
"""What: the chosen token and Gamma; a random token and Gamma; the chosen token alone; Gamma alone."""


class TriggerOptions(TypedDict):
    """Options of `trigger_statistics`."""

    deep: tuple[int, ...] | None
    shallow: tuple[int, ...] | None
    beta: float | None
    exclude_sink: bool


@dataclass(frozen=True)
class Options:
    """Trigger: `statistic`, `criterion`, `beta`, `deep`; `alpha_offset` is added to the calibrated threshold.

    Corruption: `token` (`peak`: the accumulation token over the `shallow` layers; `random`; or one virtual token for
    all instances), `top_k`, `replace`, `mask`, `gamma`; or `knock_out` in their place. Analysis: `target`,
    `head_reduction`.
    """

    statistic: str = "late_share"
    criterion: Criterion = "youden"
    alpha_offset: float = 0.0
    beta: float | None = None
    deep: tuple[int, ...] | None = None
    shallow: tuple[int, ...] | None = None
    exclude_sink: bool = True
    target: Target = "generated"
    head_reduction: HeadReduction = "abs_of_sum"
    token: int | str = "peak"
    top_k: int = 1
    replace: Replace = "mask"
    mask: float = 0.0
    gamma: float = 10
    knock_out: KnockOut = "nowhere"
    seed: int = 0
    max_new_tokens: int = 96

    def __post_init__(self) -> None:
        check_names(self.statistic, self.criterion)
        for name, value, known in (
            ("target", self.target, get_args(Target)),
            ("head_reduction", self.head_reduction, get_args(HeadReduction)),
            ("knock_out", self.knock_out, get_args(KnockOut)),
        ):
            if value not in known:
                raise UnknownNameError(name, value, known)
        CorruptionPlan(mask=self.mask, gamma=self.gamma, replace=self.replace)  # refuses what is out of range
        if isinstance(self.token, str) and self.token not in ("peak", "random"):
            raise UnknownNameError("token", self.token, ["peak", "random", "the number of a virtual token"])
        if self.knock_out != "nowhere" and (self.token, self.top_k, self.replace, self.mask) != (
            "peak",
            1,
            "mask",
            0.0,
        ):
            raise DPCInterpError("knock_out takes the accumulation token; leave token, top_k, replace and mask alone")
        if isinstance(self.token, int) and self.top_k != 1:
            raise DPCInterpError("top_k ranks tokens, and token names one; give one of the two")
        if self.max_new_tokens < 1:
            raise DPCInterpError(f"max_new_tokens is {self.max_new_tokens}; give at least 1")
        for layers in (self.deep, self.shallow):
            if layers is not None and not layers:
                raise DPCInterpError("a range of layers is empty; name at least one layer, or give None")

    def check(self, model: HookedModel, prompt: SoftPrompt, problems: Sequence[Problem]) -> None:
        """Refuse what this model, prompt or these problems cannot be evaluated with."""
        for layers in (self.deep, self.shallow):
            check_layers(layers or (), model.cfg.n_layers)
        check_top_k(self.top_k, max(1, prompt.n_virtual - self.exclude_sink))
        if isinstance(self.token, int):
            CorruptionPlan((self.token,))(prompt.vectors)
        lacking = [problem.id for problem in problems if not problem.rationale.strip()]
        if self.target == "gold" and lacking:
            raise DPCInterpError(f"{lacking[0]} has no written rationale; target 'gold' needs one")

    @property
    def trigger(self) -> TriggerOptions:
        """Options of `trigger_statistics`."""
        return {"deep": self.deep, "shallow": self.shallow, "beta": self.beta, "exclude_sink": self.exclude_sink}

    def plans(self, what: Corrupts, found: Analysis) -> dict[str, PromptEdit]:
        """The corruption of each analysed instance, by its name."""
        instances = found.instances["instance"].tolist()
        gamma = 0 if what == "mask only" else self.gamma
        plans: Sequence[PromptEdit]
        if what == "peak" and self.knock_out != "nowhere":
            at = {
                "shallow": self.shallow or shallow_layers(found.n_layers),
                "deep": self.deep or deep_layers(found.n_layers),
                "everywhere": None,
            }
            plans = plan_knockout(
                found, knock_out_at=at[self.knock_out], layers=self.shallow, exclude_sink=self.exclude_sink
            )
            return dict(zip(instances, plans, strict=True))
        if what == "gamma only":
            plans = [CorruptionPlan(gamma=gamma)] * len(instances)
        elif what == "random" or self.token == "random":
            plans = plan_random(
                instances,
                found.n_virtual,
                self.seed,
                gamma,
                self.mask,
                exclude_sink=self.exclude_sink,
                top_k=self.top_k,
                replace=self.replace,
            )
        elif isinstance(self.token, int):
            seeds = [noise_seed(self.replace, self.seed, instance) for instance in instances]
            plans = [CorruptionPlan((self.token,), self.mask, gamma, self.replace, seed) for seed in seeds]
        else:
            plans = plan_corruption(
                found,
                gamma,
                self.mask,
                layers=self.shallow,
                exclude_sink=self.exclude_sink,
                top_k=self.top_k,
                replace=self.replace,
                seed=self.seed,
            )
        return dict(zip(instances, plans, strict=True))
