"""The soft prompt: n virtual tokens, vectors that a model reads before the question, and where it is loaded from.

On disk a prompt is a PEFT prompt-tuning adapter (`adapter.py`); `embed_hooks.py` puts it into a model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from dpc_interp.errors import DPCInterpError, NonFiniteError, ShapeError, UnknownNameError
from dpc_interp.host.torch_state import torch_defaults
from dpc_interp.models.hooked import HookedModel
from dpc_interp.models.loading import ASSETS, AnyModel, as_model
from dpc_interp.prompts import embedding
from dpc_interp.prompts.adapter import CONFIG, RECIPE, initial_text, read_adapter, read_json, write_adapter
from dpc_interp.prompts.adapter_source import check_has_adapter, fetch_adapter, join_subfolder, parse_hub_name
from dpc_interp.prompts.entry import check_entry, prompt_width
from dpc_interp.repr_html import card, first_line

if TYPE_CHECKING:
    Vectors = Float[Tensor, "n_virtual d_model"]
else:
    Vectors = Any  # `as_vectors` checks what is given, in one line

PROMPTS = ASSETS / "prompts"
"""Folder of the prompts that ship with the package."""
MAX_NAME = 40
"""Characters of a prompt's name that comes from its text."""


@dataclass(frozen=True)
class SoftPrompt:
    """A soft prompt.

    Attributes:
        vectors: embeddings of the virtual tokens. A tensor is taken as it is; a parameter of a module is copied
            without its gradient; arrays and lists of numbers become float32 tensors.
        name: name of the prompt, as results show it.
        recipe: how the prompt was tuned; empty where that is not known.
        base_model: name of the model that the prompt was tuned on; empty where that is not known.

    Example:
        >>> import torch
        >>> import dpc_interp as dpc
        >>> dpc.SoftPrompt(torch.zeros(20, 128), name="zeros").n_virtual
        20

    Raises:
        ShapeError: the vectors are not [n_virtual, d_model].
        DPCInterpError: the vectors are no floating-point numbers.
    """

    vectors: Vectors
    name: str = "prompt"
    recipe: dict[str, Any] = field(default_factory=dict)
    base_model: str = ""

    def __post_init__(self) -> None:
        """Check the vectors, and turn arrays and parameters into plain tensors."""
        object.__setattr__(self, "vectors", embedding.as_vectors(self.vectors))

    def __repr__(self) -> str:
        tuned = f", tuned on {first_line(self.base_model)!r}" if self.base_model else ""
        # stored answers of a context are found by its repr, which must differ where two prompts share a name
        content = sha256(self.vectors.detach().double().cpu().numpy().tobytes()).hexdigest()[:12]
        size = f"{self.n_virtual} virtual tokens, d_model {self.vectors.shape[1]}"
        return f"SoftPrompt({self.name!r}, {size}{tuned}, {content})"

    def _repr_html_(self) -> str:
        norms = self.vectors.float().norm(dim=1)
        facts = {
            "virtual tokens": f"{self.n_virtual}, each of {self.vectors.shape[1]} numbers ({self.vectors.dtype})",
            "norms": f"{norms.min():.3g} to {norms.max():.3g}, median {norms.median():.3g}",
            "tuned on": self.base_model or None,
        }
        facts |= {name: first_line(str(value), 300) for name, value in self.recipe.items()}
        return card(f"SoftPrompt {self.name}", facts, note="prompt.nearest_tokens(model) compares with words")

    def nearest_tokens(self, model: AnyModel, k: int = 3) -> pd.DataFrame:
        """The tokens of the vocabulary whose embeddings are most similar to each virtual token.

        They mislead: a virtual token need not mean what its nearest words mean, which differ between seeds that work
        equally well, and a token can be far from every word.

        Args:
            model: that reads the prompt, or its name.
            k: tokens for each virtual token.

        Returns:
            One row per virtual token and rank: virtual_token, rank, token (text), cosine (similarity, -1 to 1).

        Raises:
            DPCInterpError: the prompt does not fit the model.

        Example:
            >>> import dpc_interp as dpc
            >>> model = dpc.load_model("reasoner")
            >>> dpc.SoftPrompt.from_text(model, "Think step").nearest_tokens(model, k=1)["token"].tolist()
            ['Think', ' step']
        """
        model = as_model(model)
        check_prompt(model, self.vectors)
        return embedding.nearest_tokens(model, self.vectors, k)

    @classmethod
    @torch_defaults()
    def from_text(cls, model: AnyModel, text: str, n_virtual: int | None = None, name: str | None = None) -> SoftPrompt:
        """Make a prompt of the embeddings of a text, tokenized without special tokens.

        Args:
            model: the model that will read the prompt, with a tokenizer, or its name.
            text: any text, such as "Think step by step."
            n_virtual: number to which the tokens are repeated or cut, as PEFT does; None: as many as there are.
            name: name of the prompt; None: the first characters of the text.

        Returns:
            The prompt, float32 on the CPU. Its `recipe` holds the text and the number of virtual tokens.

        Raises:
            DPCInterpError: no tokens, words that the model's vocabulary lacks, or a number below 1.

        Example:
            >>> import dpc_interp as dpc
            >>> dpc.SoftPrompt.from_text(dpc.load_model("reasoner"), "Think step by step.").name
            'Think step by step.'
        """
        model = as_model(model)
        tokens = embedding.text_tokens(model, text)
        if n_virtual is not None:
            embedding.check_n_virtual(n_virtual)
            tokens = embedding.repeat_or_cut(tokens, n_virtual)
        name = " ".join(text.split())[:MAX_NAME] if name is None else name
        recipe = {"text": text, "n_virtual": len(tokens)}
        return cls(embedding.embed_tokens(model, tokens), name, recipe, str(model.cfg.model_name))

    @classmethod
    @torch_defaults()
    def random(cls, model: AnyModel, n_virtual: int, seed: int = 0, name: str | None = None) -> SoftPrompt:
        """Make a Gaussian prompt with the mean and standard deviation of each column of the embedding table.

        Args:
            model: the model that will read the prompt, or its name.
            n_virtual: number of virtual tokens.
            seed: seed of the draws, which are the same on every device.
            name: name of the prompt; None: `random/seed0` with the seed.

        Returns:
            The prompt, float32 on the CPU. Its `recipe` holds the seed and the number of virtual tokens.

        Raises:
            DPCInterpError: a number below 1.

        Example:
            >>> import dpc_interp as dpc
            >>> dpc.SoftPrompt.random(dpc.load_model("reasoner"), 20, seed=3).name
            'random/seed3'
        """
        model = as_model(model)
        embedding.check_n_virtual(n_virtual)
        vectors = embedding.random_vectors(model, n_virtual, seed)
        recipe = {"init": "random", "seed": seed, "n_virtual": n_virtual}
        return cls(vectors, f"random/seed{seed}" if name is None else name, recipe, str(model.cfg.model_name))

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
def load_prompt(
    name: str | Path,
    model: AnyModel | None = None,
    *,
    subfolder: str | None = None,
    revision: str | None = None,
    task: int | None = None,
) -> SoftPrompt:
    """Load a soft prompt, its vectors in float32.

    Args:
        name: a bundled prompt, `reasoner/story` (tuning seed 0) or `reasoner/story/seed1`; the folder of a PEFT
            adapter (prompt tuning, P-tuning, CPT or multitask prompt tuning); or an adapter on the Hugging Face Hub,
            `owner/name`, `owner/name/subfolder`, `owner/name@revision` or `owner/name/subfolder@revision`.
        model: the model that will read the prompt, whose width is checked; None: no check. The base model named by the
            adapter is informative only, because a model has many names (Hub, folder, alias).
        subfolder: folder of the adapter within `name`, such as `checkpoint-500`; None: `name` itself.
        revision: branch, tag or commit on the Hub; None: the main branch.
        task: which task of a multitask adapter, counted from 0; None for every other adapter.

    Returns:
        The prompt.

    Raises:
        UnknownNameError: no such bundled prompt and no such folder.
        DPCInterpError: another type of adapter (prefix tuning, LoRA, ...), files that cannot be read, a task that is
            missing or does not exist, or an adapter that cannot be fetched.
        ShapeError: the prompt is not as wide as the model, or not of the shape that its configuration states.
        NonFiniteError: the vectors contain NaN or infinity.

    Example:
        >>> import dpc_interp as dpc
        >>> dpc.load_prompt("reasoner/story").vectors.shape
        torch.Size([20, 128])
    """
    if not isinstance(name, (str, Path)):
        raise DPCInterpError(f"load_prompt takes a name or a path, not a {type(name).__name__}")
    given = "/".join(filter(None, [str(name), subfolder]))
    folder = _find_prompt(str(name), subfolder, revision)
    vectors, base_model = read_adapter(folder, task)
    check_finite(vectors)
    model = None if model is None else as_model(model)
    if model is not None and vectors.shape[1] != prompt_width(model):
        tuned_on = f" (tuned on {base_model!r})" if base_model else ""
        raise ShapeError(
            f"the prompt {given!r}{tuned_on} is {vectors.shape[1]} wide, the model {model.cfg.model_name!r} "
            f"{prompt_width(model)}; load the model it was tuned on"
        )
    recipe = read_json(folder / RECIPE) if (folder / RECIPE).is_file() else {}
    text = initial_text(folder)
    if text is not None:
        recipe |= {"init_text": text, "init_special_tokens": True}
    # a prompt without a recorded name: a folder of the Hub's cache is named after a commit, so use the name given
    default_name = folder.resolve().name if Path(name).expanduser().is_dir() else given
    if task is not None:
        default_name += f"/task{task}"
    return SoftPrompt(vectors, str(recipe.pop("name", default_name)), recipe, base_model)


AnyPrompt = SoftPrompt | str | Path
"""What every call takes as a prompt: a loaded one, or the name of one for `load_prompt`."""


@overload
def as_prompt(prompt: AnyPrompt) -> SoftPrompt: ...
@overload
def as_prompt(prompt: AnyPrompt | None, *, optional: Literal[True]) -> SoftPrompt | None: ...
def as_prompt(prompt: AnyPrompt | None, *, optional: bool = False) -> SoftPrompt | None:
    """A loaded prompt as it is; a name loaded by `load_prompt`.

    Args:
        prompt: a prompt or a name.
        optional: whether None is allowed.

    Raises:
        DPCInterpError: something else, or what `load_prompt` refuses.
    """
    if isinstance(prompt, str | Path):
        return load_prompt(prompt)
    if not isinstance(prompt, SoftPrompt) and not (optional and prompt is None):
        raise DPCInterpError(f"a prompt is a SoftPrompt or its name, not {type(prompt).__name__}; see load_prompt")
    return prompt


def _find_prompt(name: str, subfolder: str | None, revision: str | None) -> Path:
    """The folder of an adapter: bundled, local, or in the cache of the Hub."""
    local = Path(name).expanduser()
    bundled = [] if local.is_absolute() else [PROMPTS / name, PROMPTS / name / "seed0"]
    for folder in (join_subfolder(root, subfolder) for root in (*bundled, local) if name):
        if (folder / CONFIG).is_file():
            if revision is not None:
                raise DPCInterpError(f"{folder} is a local folder, which has no revisions; leave out revision=")
            return folder
    if name and local.is_dir():
        folder = join_subfolder(local, subfolder)
        check_has_adapter(folder, str(folder))
    if local.is_file():
        raise DPCInterpError(f"{name} is a file; give the folder of the adapter")
    on_hub = parse_hub_name(name, subfolder, revision)
    # a misspelt name below a bundled model, such as reasoner/stroy, must not be looked up on the Hub
    if on_hub and not (PROMPTS / name.partition("/")[0]).is_dir():
        return fetch_adapter(on_hub)
    tasks = dict.fromkeys(prompt.rpartition("/")[0] for prompt in bundled_prompts())
    task = name.rpartition("/")[0]
    known = bundled_prompts(f"{task}/") if task in tasks else list(tasks)
    raise UnknownNameError("prompt", name, [*known, "a PEFT adapter folder"])


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
        DPCInterpError: the model cannot read a soft prompt (see `entry.py`).
    """
    width = prompt_width(model)
    if vectors.ndim != 2 or vectors.shape[1] != width or vectors.shape[0] < 1:
        shape = list(vectors.shape)
        raise ShapeError(f"the soft prompt is {shape}; this model needs [n_virtual, {width}]: tune one for it")
    check_finite(vectors)
    check_entry(model)
