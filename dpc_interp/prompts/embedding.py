"""Vectors that are not tuned: the caller's own, the embeddings of a text, and Gaussian ones like the embedding table's.

random vectors = mean + std * z     mean, std: of each column of the embedding table; z standard normal, seeded

Embeddings are those that enter the model as `inputs_embeds` (`entry.py`): the output of the embedding module, which in
Gemma is sqrt(d_model) times a row of the table. PEFT initialises its vectors in the same way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Parameter

from dpc_interp.errors import DPCInterpError, ShapeError
from dpc_interp.models.hooked import HookedModel, tokenizer_of
from dpc_interp.models.lens import HookedTransformer

N_ROWS = 8192
"""Rows of the embedding table that are read at a time, so that a large vocabulary needs little memory."""


def as_vectors(vectors: Any) -> Tensor:
    """The vectors of a prompt as a tensor.

    Args:
        vectors: a tensor, which is taken as it is; a parameter of a module, which is copied without its gradient, so
            that it does not change when the module is trained on; an array or lists of numbers, which become float32.

    Returns:
        A floating-point tensor [n_virtual, d_model].

    Raises:
        ShapeError: another shape.
        DPCInterpError: no floating-point numbers.
    """
    if isinstance(vectors, Parameter):
        vectors = vectors.detach().clone()
    elif not isinstance(vectors, Tensor):
        try:
            array = np.array(vectors)
            vectors = torch.from_numpy(array.astype(np.float32) if array.dtype.kind == "f" else array)
        except (TypeError, ValueError, RuntimeError) as error:  # texts, objects, rows of different lengths
            raise DPCInterpError(
                f"the vectors of a prompt are a {type(vectors).__name__} that is no table of numbers; "
                "give a tensor [n_virtual, d_model]"
            ) from error
    if not vectors.is_floating_point():
        raise DPCInterpError(
            f"the vectors of a prompt are {str(vectors.dtype).removeprefix('torch.')}; give floating-point numbers, "
            "or SoftPrompt.from_text for tokens"
        )
    shape = list(vectors.shape)
    if len(shape) != 2 or 0 in shape:
        fix = {1: ": vectors[None] is one virtual token", 3: ": vectors[0] is the first prompt of a batch"}
        raise ShapeError(f"the soft prompt is {shape}; give [n_virtual, d_model]{fix.get(len(shape), '')}")
    return vectors


def check_n_virtual(n_virtual: Any, name: str = "n_virtual") -> None:
    """Check a number of virtual tokens.

    Args:
        n_virtual: the number.
        name: name of the argument.

    Raises:
        DPCInterpError: it is not a whole number of at least 1.
    """
    if isinstance(n_virtual, bool) or not isinstance(n_virtual, int) or n_virtual < 1:
        raise DPCInterpError(f"{name} is {n_virtual!r}; give at least 1")


def text_tokens(
    model: HookedModel, text: str, name: str = "text", *, special_tokens: bool = False
) -> Int[Tensor, " n"]:
    """The tokens of a text.

    Args:
        model: a `HookedTransformer` or `TransformerBridge` with a tokenizer.
        text: any text.
        name: name of the argument, for error messages.
        special_tokens: also those that the tokenizer adds, such as BOS.

    Raises:
        DPCInterpError: the text has no tokens, or words that the model's vocabulary lacks.
    """
    tokenizer = tokenizer_of(model)
    ids = tokenizer(text, add_special_tokens=special_tokens).input_ids
    if not ids:
        raise DPCInterpError(f"{name} has no tokens; give a text with at least one word")
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        raise DPCInterpError(
            f"the model's vocabulary lacks words of {text[:40]!r}; give {name}= in words that it knows"
        )
    return torch.tensor(ids)


def repeat_or_cut(tokens: Int[Tensor, " n"], n_virtual: int) -> Int[Tensor, " n_virtual"]:
    """Repeat tokens, or cut them, to a number, as PEFT does with `prompt_tuning_init_text`.

    Args:
        tokens: at least one.
        n_virtual: the number.
    """
    return tokens.repeat(-(-n_virtual // len(tokens)))[:n_virtual]


@torch.no_grad()
def embed_tokens(model: HookedModel, tokens: Int[Tensor, " n"]) -> Float[Tensor, "n width"]:
    """Embeddings of tokens as they enter the model, float32 on the CPU.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`.
        tokens: ids.
    """
    tokens = tokens.to(model.W_E.device)
    if isinstance(model, HookedTransformer):
        return model.W_E[tokens].detach().cpu().float()
    embed: Any = model.embed.original_component  # the module alone, without the hooks around it
    return embed(tokens).detach().cpu().float()


def nearest_tokens(model: HookedModel, vectors: Float[Tensor, "n_virtual width"], k: int) -> pd.DataFrame:
    """The tokens whose embeddings are most similar to each vector; see `SoftPrompt.nearest_tokens`.

    Args:
        model: the model, with a tokenizer.
        vectors: any vectors of the width of its embeddings.
        k: tokens for each vector.
    """
    tokenizer = tokenizer_of(model)
    table = embed_tokens(model, torch.arange(min(len(tokenizer), model.cfg.d_vocab)))
    unit, units = (torch.nn.functional.normalize(x.float().cpu(), dim=1) for x in (vectors, table))
    cosine, tokens = (unit @ units.T).topk(min(k, len(units)), dim=1)
    rows = [
        (virtual_token, rank, str(tokenizer.decode([token])), similarity)
        for virtual_token, pairs in enumerate(zip(tokens.tolist(), cosine.tolist(), strict=True))
        for rank, (token, similarity) in enumerate(zip(*pairs, strict=True))
    ]
    return pd.DataFrame(rows, columns=["virtual_token", "rank", "token", "cosine"])


def random_vectors(model: HookedModel, n_virtual: int, seed: int) -> Float[Tensor, "n_virtual width"]:
    """Gaussian vectors with the mean and the standard deviation of each column of the embedding table.

    The moments are summed on the CPU in float64 and the draws are a CPU generator's, so that the vectors are the
    same on every device.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`.
        n_virtual: number of vectors.
        seed: seed of the draws.

    Returns:
        float32 on the CPU.
    """
    return gaussian_vectors(*embedding_moments(model), n_virtual, seed)


def embedding_moments(model: HookedModel) -> tuple[Float[Tensor, " width"], Float[Tensor, " width"]]:
    """Mean and standard deviation of each column of the embedding table, float64 on the CPU.

    Args:
        model: a `HookedTransformer` or `TransformerBridge`.

    Raises:
        DPCInterpError: a table of fewer than 2 rows.
    """
    n_rows = model.W_E.shape[0]
    if n_rows < 2:
        raise DPCInterpError("the embedding table has fewer than 2 rows, so it has no standard deviation")
    chunks = torch.arange(n_rows).split(N_ROWS)
    mean = torch.stack([embed_tokens(model, rows).double().sum(0) for rows in chunks]).sum(0) / n_rows
    squares = [(embed_tokens(model, rows).double() - mean).square().sum(0) for rows in chunks]
    return mean, (torch.stack(squares).sum(0) / (n_rows - 1)).sqrt()


def gaussian_vectors(
    mean: Float[Tensor, " width"], std: Float[Tensor, " width"], n_virtual: int, seed: int
) -> Float[Tensor, "n_virtual width"]:
    """Draw vectors with these moments on the CPU.

    Args:
        mean: of each column.
        std: of each column.
        n_virtual: number of vectors.
        seed: seed of the draws.

    Returns:
        float32.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n_virtual, len(mean), generator=generator, dtype=torch.float32, device="cpu")
    return (mean + std * noise.double()).float()
