"""The soft prompt: where it comes from, and how it enters a model through `hook_embed`.

A frozen model reads `P | Q | ...`: placeholder tokens hold the places of the n virtual tokens, and a hook writes the
prompt's vectors over their embeddings. Positions, masks, caches and `run_with_cache` then work as they do for any
tokens. On disk a prompt is a PEFT prompt-tuning adapter (`adapter.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from dpc_interp.errors import ContextLengthError, DPCInterpError, NonFiniteError, ShapeError, UnknownNameError
from dpc_interp.lm.adapter import CONFIG, RECIPE, fetch_adapter, is_hub_name, read_adapter, read_json, write_adapter
from dpc_interp.lm.hooked import HookedModel
from dpc_interp.lm.loading import ASSETS

PROMPTS = ASSETS / "prompts"
PLACEHOLDER = 0
"""Token id under a virtual token; its embedding is always overwritten."""
EmbedHook = Callable[[Tensor, HookPoint], Tensor]
PromptEdit = Callable[[Tensor], Tensor]
"""Maps a prompt's vectors [n_virtual, d_model] to the vectors that are read instead."""


@dataclass(frozen=True)
class SoftPrompt:
    """`vectors` [n_virtual, d_model]; `name` stands in results; `recipe` tells how it was trained.

    `base_model` names the model it was trained on, where that is known.
    """

    vectors: Float[Tensor, "n_virtual d_model"]
    name: str = "prompt"
    recipe: dict[str, Any] = field(default_factory=dict)
    base_model: str = ""

    @property
    def n_virtual(self) -> int:
        """Number of virtual tokens."""
        return self.vectors.shape[0]

    def save_pretrained(self, folder: str | Path, base_model: str = "") -> None:
        """Write the prompt as a PEFT prompt-tuning adapter, float32, which `PeftModel.from_pretrained` loads.

        Args:
            base_model: name or folder of the Hugging Face model; empty: the prompt's own `base_model`.
        """
        folder = Path(folder)
        write_adapter(folder, self.vectors, base_model or self.base_model)
        (folder / RECIPE).write_text(json.dumps({"name": self.name, **self.recipe}, indent=1) + "\n")


def load_prompt(name: str | Path, model: HookedModel | None = None) -> SoftPrompt:
    """Load a soft prompt, its vectors in float32.

    Args:
        name: of a bundled prompt, `reasoner/story` (tuning seed 0) or `reasoner/story/seed1`; the folder of a PEFT
            prompt-tuning adapter; or the name of one on the Hugging Face hub, `owner/adapter`.
        model: the model that is to read the prompt. A prompt of another width is refused. Its base model may go by
            another name: a model has many (hub, folder, alias), so `base_model` tells and does not decide.

    Raises:
        UnknownNameError: no such bundled prompt and no such folder.
        DPCInterpError: another kind of adapter (prefix tuning, P-tuning, LoRA, ...), files that cannot be read, or an
            adapter that cannot be fetched.
        ShapeError: the prompt is not as wide as the model, or not of the shape its configuration states.
        NonFiniteError: its vectors hold NaN or infinity.
    """
    folder = _find_prompt(str(name))
    vectors, base_model = read_adapter(folder)
    check_finite(vectors)
    if model is not None and vectors.shape[1] != model.cfg.d_model:
        tuned_on = f" (tuned on {base_model!r})" if base_model else ""
        raise ShapeError(
            f"the prompt {str(name)!r}{tuned_on} is {vectors.shape[1]} wide, the model {model.cfg.model_name!r} "
            f"{model.cfg.d_model}; load the model it was tuned on"
        )
    recipe = read_json(folder / RECIPE) if (folder / RECIPE).is_file() else {}
    # a folder of the hub's cache is named by a commit
    own_name = folder.resolve().name if Path(name).is_dir() else str(name)
    return SoftPrompt(vectors, str(recipe.pop("name", own_name)), recipe, base_model)


def _find_prompt(name: str) -> Path:
    for folder in (PROMPTS / name, PROMPTS / name / "seed0", Path(name)):
        if (folder / CONFIG).is_file():
            return folder
    if Path(name).is_dir():
        return Path(name)
    if Path(name).is_file():
        raise DPCInterpError(f"{name} is a file; give the folder of the adapter")
    if is_hub_name(name) and not (PROMPTS / name.partition("/")[0]).is_dir():
        return fetch_adapter(name)
    tasks = dict.fromkeys(known.rpartition("/")[0] for known in bundled_prompts())
    raise UnknownNameError("prompt", name, [*tasks, "a PEFT adapter folder"])


def bundled_prompts(prefix: str = "") -> list[str]:
    """Names of the prompts that ship with the package, those that begin with `prefix`."""
    names = sorted(str(file.parent.relative_to(PROMPTS)) for file in PROMPTS.rglob("adapter_config.json"))
    return [name for name in names if name.startswith(prefix)]


def check_finite(vectors: Tensor) -> None:
    """Refuse vectors with NaN or infinity."""
    if not torch.isfinite(vectors).all():
        raise NonFiniteError("the soft prompt holds NaN or infinity; train it again with a smaller learning rate")


def check_prompt(model: HookedModel, vectors: Tensor) -> None:
    """Refuse vectors that `model` cannot read: another width, another rank, or not finite."""
    if vectors.ndim != 2 or vectors.shape[1] != model.cfg.d_model or vectors.shape[0] < 1:
        shape = list(vectors.shape)
        raise ShapeError(
            f"the soft prompt is {shape}; this model needs [n_virtual, {model.cfg.d_model}]: tune one for it"
        )
    check_finite(vectors)


def check_length(model: HookedModel, n_positions: int) -> None:
    """Refuse a sequence longer than the model's context."""
    if n_positions > model.cfg.n_ctx:
        raise ContextLengthError(
            f"{n_positions} positions exceed the model's context of {model.cfg.n_ctx}; shorten the input"
        )


def with_placeholders(tokens: Int[Tensor, "batch pos"], n_virtual: int) -> Int[Tensor, "batch n_virtual_and_pos"]:
    """`tokens` with room for a soft prompt in front."""
    return torch.cat([tokens.new_full((tokens.shape[0], n_virtual), PLACEHOLDER), tokens], dim=1)


def logits_behind(
    model: HookedModel, tokens: Int[Tensor, "batch pos"], n_virtual: int
) -> Float[Tensor, "row logit_pos d_vocab"]:
    """One forward pass over `tokens` with placeholders in front; a hook of the caller's writes the prompt over them.

    Logits [batch, n_virtual + pos, d_vocab], unless a hook of the caller's left fewer.
    """
    tokens = with_placeholders(tokens.to(model.cfg.device), n_virtual)
    # where the tokenizer pads on the left, TransformerLens would mask the placeholders as padding if not told otherwise
    pads_left = model.tokenizer is not None and model.tokenizer.padding_side == "left"
    return model(tokens, attention_mask=torch.ones_like(tokens) if pads_left else None)


def write_prompt(vectors: Tensor, starts: Int[Tensor, " batch"] | None = None) -> EmbedHook:
    """A hook for `hook_embed` that writes `vectors` [n_virtual, d_model] over the placeholders.

    `starts` gives the position of each row's first virtual token (left-padded batches); None: 0 for all.
    """

    def hook(embed: Float[Tensor, "batch pos d_model"], hook: HookPoint) -> Float[Tensor, "batch pos d_model"]:
        rows, columns = prompt_index(embed.shape[0], vectors.shape[0], starts)
        written = vectors.to(embed).expand(embed.shape[0], -1, -1)
        return embed.index_put((rows, columns), written)

    return hook


def edit_prompt(edits: Sequence[PromptEdit], n_virtual: int, starts: Int[Tensor, " batch"] | None = None) -> EmbedHook:
    """A hook for `hook_embed` that edits the written prompt: one edit a row, or one for all rows."""

    def hook(embed: Float[Tensor, "batch pos d_model"], hook: HookPoint) -> Float[Tensor, "batch pos d_model"]:
        rows, columns = prompt_index(embed.shape[0], n_virtual, starts)
        vectors = embed[rows, columns]
        if len(edits) not in (1, len(vectors)):
            raise DPCInterpError(
                f"there are {len(edits)} edits for {len(vectors)} rows; give one for all rows or one a row"
            )
        by_row = edits if len(edits) == len(vectors) else [edits[0]] * len(vectors)
        edited = torch.stack([edit(row) for edit, row in zip(by_row, vectors, strict=True)])
        return embed.index_put((rows, columns), edited)

    return hook


def prompt_index(batch: int, n_virtual: int, starts: Int[Tensor, " batch"] | None) -> tuple[Tensor, Tensor]:
    """Row and column indices [batch, n_virtual] of the virtual tokens."""
    starts = torch.zeros(batch, dtype=torch.long) if starts is None else starts
    rows = torch.arange(batch, device=starts.device)[:, None].expand(-1, n_virtual)
    return rows, starts[:, None] + torch.arange(n_virtual, device=starts.device)


@contextmanager
def prompted(
    model: HookedModel, prompt: SoftPrompt, *more: EmbedHook
) -> Iterator[Callable[[Int[Tensor, "batch pos"]], Float[Tensor, "batch n_virtual_and_pos d_vocab"]]]:
    """Put a soft prompt in front of whatever the model reads.

    Inside the context `run(tokens)` maps tokens [batch, pos] to logits [batch, n_virtual + pos, d_vocab]. `more` hooks
    act at `hook_embed` after the prompt is written. All hooks are gone afterwards, also when the body raises.

    Raises:
        ShapeError, NonFiniteError: the prompt does not fit the model.
        ContextLengthError: a sequence longer than the context (from `run`).
    """
    check_prompt(model, prompt.vectors)

    def run(tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch n_virtual_and_pos d_vocab"]:
        check_length(model, prompt.n_virtual + tokens.shape[1])
        return logits_behind(model, tokens, prompt.n_virtual)

    with model.hooks(fwd_hooks=[("hook_embed", hook) for hook in (write_prompt(prompt.vectors), *more)]):
        yield run
