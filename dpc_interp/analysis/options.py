"""`Options`: what an evaluation computes. Each option, with its default, is declared here and nowhere else.

Functions that take one of these options as an argument use the default of this class (`Options.gamma`). How the work is
run, on which results never depend, is `RunConfig` (`execution/run_config.py`).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from dpc_interp.analysis.schema import TRIGGER_STATISTICS
from dpc_interp.errors import DPCInterpError, UnknownNameError
from dpc_interp.generation.stopping import check_max_new_tokens, check_stop_strings
from dpc_interp.generation.text_options import TextOptions, name_of
from dpc_interp.models.encoding import QuestionFormat, as_question_format
from dpc_interp.tasks.answers import STOP_STRINGS, Extraction, check_extraction
from dpc_interp.tasks.problem import PLACE, Template

Target = Literal["generated", "gold"]
"""Tokens that the loss is taken on: those the model generated, or the problem's written rationale."""
HeadReduction = Literal["abs_of_sum", "sum_of_abs", "mean_of_abs"]
"""How heads are reduced to one value: |sum| (paper, eq. 1), sum of |.|, mean of |.|."""
BetaStatistic = Literal["mean", "median", "geometric"]
"""What beta is of the flow into the early half: its mean (the paper), median or geometric mean."""
Criterion = Literal["accuracy", "youden"]
"""Most correct answers with corruption where the trigger fires; or Youden's J against 'PT was wrong'."""
Replace = Literal["mask", "mean", "noise"]
"""What replaces a corrupted vector: zeros, the mean vector of the prompt, or noise of the same norm."""
KnockOut = Literal["nowhere", "shallow", "deep", "everywhere"]
"""Layers at which generated tokens cannot attend to the accumulation token, whose vector stays unchanged."""


@dataclass(frozen=True)
class Options:
    """What an evaluation computes; stored with its results.

    Attributes:
        statistic: the trigger statistic, a column of `trigger_statistics`.
        criterion: how the trigger threshold alpha is calibrated, see `calibrate_trigger`.
        alpha_offset: added to the calibrated threshold.
        beta: flow above which a rationale token counts as affected; None: that of the early half of the same instance.
        beta_statistic: what beta is of the flow into the early half, `mean`, `median` or `geometric`.
        deep: layers of the trigger; None: the last third.
        shallow: layers of the accumulation token; None: the first third.
        exclude_sink: leave attention sinks (see `attention_sinks`) out of the argmax and of the mean.
        target: the tokens that the loss is taken on, `generated` or `gold`.
        head_reduction: how heads are reduced to one value, see `HeadReduction`.
        token: what is corrupted: `peak`, the accumulation token of each instance; `random`; or one virtual token, by
            its index, for all instances.
        top_k: number of tokens of largest accumulation that are corrupted.
        replace: what replaces a corrupted vector: `mask` (zeros), `mean` or `noise`.
        mask: factor of the corrupted vectors, 0 to 1.
        gamma: percentage of entries of smallest magnitude that are zeroed in every other vector, 0 to 100.
        knock_out: corrupt by attention knock-out instead of changing vectors, at the `shallow` layers, the `deep` ones
            or `everywhere`; see `KnockoutPlan`.
        instruction: the question with a written instruction, a text with `{question}`; the method `instruct` reads it.
        seed: seed of the random placebo, of random prompts, of noise and of the bootstrap.
        max_new_tokens: decoding stops there at the latest; None: a length by task, see `generate`.
        template: how a question becomes the text that the model reads, see `generate`; None: that of the prompt.
        prepend_bos: whether BOS comes first; None: that of the prompt, else the tokenizer's own rule.
        stop_strings: a text ends before the first of them.
        extraction: how answers are read, see `extract_answer`; None: that of the problems.

    Example:
        >>> import dpc_interp as dpc
        >>> dpc.Options(gamma=5, deep=[4, 5]).deep
        (4, 5)
    """

    statistic: str = "late_share"
    criterion: Criterion = "youden"
    alpha_offset: float = 0.0
    beta: float | None = None
    beta_statistic: BetaStatistic = "mean"
    deep: Sequence[int] | None = None
    shallow: Sequence[int] | None = None
    exclude_sink: bool = True
    target: Target = "generated"
    head_reduction: HeadReduction = "abs_of_sum"
    token: int | str = "peak"
    top_k: int = 1
    replace: Replace = "mask"
    mask: float = 0.0
    gamma: float = 10
    knock_out: KnockOut = "nowhere"
    instruction: str = "Think step by step.\n{question}"
    seed: int = 0
    max_new_tokens: int | None = None
    template: QuestionFormat | Template | None = None
    prepend_bos: bool | None = None
    stop_strings: Sequence[str] = STOP_STRINGS
    extraction: Extraction | None = None

    def __post_init__(self) -> None:
        for name in ("deep", "shallow"):
            layers = getattr(self, name)
            if layers is not None and not len(layers):
                raise DPCInterpError(f"the layer range {name!r} is empty; name at least one layer, or give None")
            object.__setattr__(self, name, None if layers is None else tuple(layers))
        check_statistic(self.statistic, self.criterion)
        for name, value, known in (
            ("target", self.target, get_args(Target)),
            ("head_reduction", self.head_reduction, get_args(HeadReduction)),
            ("beta_statistic", self.beta_statistic, get_args(BetaStatistic)),
            ("knock_out", self.knock_out, get_args(KnockOut)),
        ):
            if value not in known:
                raise UnknownNameError(name, value, known)
        check_corruption(self.mask, self.gamma, self.replace)
        self._check_token()
        check_max_new_tokens(self.max_new_tokens)
        self._check_text()

    def _check_text(self) -> None:
        check_stop_strings(self.stop_strings)
        object.__setattr__(self, "stop_strings", tuple(self.stop_strings))
        as_question_format(self.template, self.prepend_bos)
        if PLACE not in self.instruction:
            raise DPCInterpError(f'the instruction lacks "{PLACE}"; write where the question stands')
        if self.extraction is not None:
            check_extraction(self.extraction)

    @property
    def text(self) -> TextOptions:
        """The options on which generated texts and their answers depend."""
        given = as_question_format(self.template, self.prepend_bos)
        return TextOptions(self.max_new_tokens, given, tuple(self.stop_strings), self.extraction)

    def record(self) -> dict[str, Any]:
        """Each option as JSON can hold it; a function by its name and a hash of its code."""
        record = asdict(self)
        if isinstance(self.template, QuestionFormat):
            record["template"] = asdict(self.template) | {"template": name_of(self.template.template)}
        else:
            record["template"] = name_of(self.template)
        return record | {"extraction": name_of(self.extraction)}

    def _check_token(self) -> None:
        if isinstance(self.token, str) and self.token not in ("peak", "random"):
            raise UnknownNameError("token", self.token, ["peak", "random", "the index of a virtual token"])
        if not isinstance(self.token, str):
            try:
                object.__setattr__(self, "token", operator.index(self.token))  # also numpy's integers
            except TypeError as error:
                raise DPCInterpError(
                    f"token is {self.token!r}; give peak, random or the index of a virtual token"
                ) from error
        if isinstance(self.token, int) and self.top_k != 1:
            raise DPCInterpError("top_k ranks tokens, and token names one; give one of the two")
        plain = (self.token, self.top_k, self.replace, self.mask) == ("peak", 1, "mask", 0.0)
        if self.knock_out != "nowhere" and not plain:
            raise DPCInterpError(
                "knock_out acts on the accumulation token; leave token, top_k, replace and mask at their defaults"
            )


def check_statistic(statistic: str, criterion: str) -> None:
    """Raise `UnknownNameError` unless the trigger statistic and the criterion exist."""
    if statistic not in TRIGGER_STATISTICS:
        raise UnknownNameError("statistic", statistic, list(TRIGGER_STATISTICS))
    if criterion not in get_args(Criterion):
        raise UnknownNameError("criterion", criterion, get_args(Criterion))


def check_corruption(mask: float, gamma: float, replace: str) -> None:
    """Raise `DPCInterpError` unless the strength and the kind of a corruption are in range."""
    if not 100 >= gamma >= 0:  # written so that NaN is out of range too
        raise DPCInterpError(f"gamma is {gamma}; give a percentage from 0 to 100")
    if not 0 <= mask <= 1:
        raise DPCInterpError(f"mask is {mask}; give a factor from 0 to 1")
    if replace not in get_args(Replace):
        raise UnknownNameError("replacement", replace, get_args(Replace))
