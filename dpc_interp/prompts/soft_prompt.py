"""The soft prompt: n virtual tokens, vectors that a model reads before the question, and where it is loaded from.

On disk a prompt is a PEFT prompt-tuning adapter (`adapter.py`); `embed_hooks.py` puts it into a model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dpc_interp.errors import DPCInterpError, NonFiniteError, ShapeError, UnknownNameError
from dpc_interp.host.torch_state import torch_defaults
from dpc_interp.models.hooked import HookedModel
from dpc_interp.models.loading import ASSETS
from dpc_interp.prompts.adapter import (
    CONFIG,
    RECIPE,
    fetch_adapter,
    is_hub_name,
    read_adapter,
    read_json,
    write_adapter,
)

PROMPTS = ASSETS / "prompts"
"""Folder of the prompts that ship with the package."""


@dataclass(frozen=True)
class SoftPrompt:
    """A soft prompt.

    Attributes:
        vectors: embeddings of the virtual tokens.
        name: name of the prompt, as results show it.
        recipe: how the prompt was tuned; empty where that is not known.
        base_model: name of the model that the prompt was tuned on; empty where that is not known.

    Example:
        >>> import torch
        >>> import dpc_interp as dpc
        >>> dpc.SoftPrompt(torch.zeros(20, 128), name="zeros").n_virtual
        20
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
            folder: where the adapter is written; created if it does not exist.
            base_model: name or folder of the Hugging Face model; empty: the `base_model` of the prompt.
        """
        folder = Path(folder)
        write_adapter(folder, self.vectors, base_model or self.base_model)
        (folder / RECIPE).write_text(json.dumps({"name": self.name, **self.recipe}, indent=1) + "\n")


@torch_defaults()
def load_prompt(name: str | Path, model: HookedModel | None = None) -> SoftPrompt:
    """Load a soft prompt, its vectors in float32.

    Args:
        name: a bundled prompt, `reasoner/story` (tuning seed 0) or `reasoner/story/seed1`; the folder of a PEFT
            prompt-tuning adapter; or an adapter on the Hugging Face Hub, `owner/adapter`.
        model: the model that will read the prompt, whose width is checked; None: no check. The base model named by the
            adapter is informative only, because a model has many names (Hub, folder, alias).

    Returns:
        The prompt.

    Raises:
        UnknownNameError: no such bundled prompt and no such folder.
        DPCInterpError: another type of adapter (prefix tuning, P-tuning, LoRA, ...), files that cannot be read, or an
            adapter that cannot be fetched.
        ShapeError: the prompt is not as wide as the model, or not of the shape that its configuration states.
        NonFiniteError: the vectors contain NaN or infinity.

    Example:
        >>> import dpc_interp as dpc
        >>> dpc.load_prompt("reasoner/story").vectors.shape
        torch.Size([20, 128])
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
    # a prompt without a recorded name: a folder of the Hub's cache is named after a commit, so use the name given
    default_name = folder.resolve().name if Path(name).is_dir() else str(name)
    return SoftPrompt(vectors, str(recipe.pop("name", default_name)), recipe, base_model)


def _find_prompt(name: str) -> Path:
    for folder in (PROMPTS / name, PROMPTS / name / "seed0", Path(name)):
        if (folder / CONFIG).is_file():
            return folder
    if Path(name).is_dir():
        return Path(name)
    if Path(name).is_file():
        raise DPCInterpError(f"{name} is a file; give the folder of the adapter")
    # a misspelt name below a bundled model, such as reasoner/stroy, must not be looked up on the Hub
    if is_hub_name(name) and not (PROMPTS / name.partition("/")[0]).is_dir():
        return fetch_adapter(name)
    tasks = dict.fromkeys(prompt.rpartition("/")[0] for prompt in bundled_prompts())
    raise UnknownNameError("prompt", name, [*tasks, "a PEFT adapter folder"])


def bundled_prompts(prefix: str = "") -> list[str]:
    """Names of the prompts that ship with the package.

    Args:
        prefix: only names that begin with it, such as `reasoner/`.
    """
    names = sorted(str(file.parent.relative_to(PROMPTS)) for file in PROMPTS.rglob("adapter_config.json"))
    return [name for name in names if name.startswith(prefix)]


def check_finite(vectors: Tensor) -> None:
    """Raise `NonFiniteError` for vectors with NaN or infinity."""
    if not torch.isfinite(vectors).all():
        raise NonFiniteError("the soft prompt contains NaN or infinity; train it again with a smaller learning rate")


def check_prompt(model: HookedModel, vectors: Tensor) -> None:
    """Check that a model can read a prompt.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`.
        vectors: vectors of the prompt.

    Raises:
        ShapeError: the vectors are not [n_virtual, d_model] of this model.
        NonFiniteError: the vectors contain NaN or infinity.
    """
    if vectors.ndim != 2 or vectors.shape[1] != model.cfg.d_model or vectors.shape[0] < 1:
        shape = list(vectors.shape)
        raise ShapeError(
            f"the soft prompt is {shape}; this model needs [n_virtual, {model.cfg.d_model}]: tune one for it"
        )
    check_finite(vectors)
