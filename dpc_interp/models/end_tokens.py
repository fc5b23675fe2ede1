"""The end tokens of a model: the tokens at which Hugging Face's `generate` stops.

`generate` stops at every `eos_token_id` of the generation configuration, which is `generation_config.json`, or else is
derived from `config.json`. It never asks the tokenizer. Where the generation configuration names no end token,
`generate` runs to its maximal length; here the configuration and the tokenizer are asked then.

| end tokens are named by | text ends at |
| --- | --- |
| `generation_config.json` | these, and no others |
| `config.json`, without a `generation_config.json` | these |
| `config.json`, where `generation_config.json` names none | these and the tokenizer's |
| the tokenizer alone | the tokenizer's |
| nothing | the model is refused |
"""

from __future__ import annotations

from typing import Any

from transformer_lens.model_bridge import TransformerBridge
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from dpc_interp.errors import DPCInterpError
from dpc_interp.models.hooked import HookedModel

ATTRIBUTE = "_dpc_end_tokens"
"""Attribute of a model that holds its end tokens; it is copied and pickled with the model."""


def end_tokens(model: HookedModel) -> tuple[int, ...]:
    """The tokens that end a text, as the module's table says.

    Args:
        model: a model of `load_model`; or a bridge, whose wrapped model is asked; or any other model, whose tokenizer
            is asked.

    Returns:
        At least one token id, each once. The tokenizer's EOS comes first where it is among them.

    Raises:
        DPCInterpError: no end token is named.
    """
    remembered = vars(model).get(ATTRIBUTE)
    if remembered is not None:
        return remembered
    wrapped: Any = model.original_model if isinstance(model, TransformerBridge) else None
    return named_end_tokens(
        getattr(wrapped, "generation_config", None), getattr(wrapped, "config", None), model.tokenizer
    )


def remember_end_tokens(
    model: HookedModel,
    generation_config: GenerationConfig | None,
    config: PreTrainedConfig | None,
    tokenizer: PreTrainedTokenizerBase | None,
) -> None:
    """Store the end tokens with the model, for `end_tokens`.

    Args:
        model: the model that is loaded.
        generation_config: of its Hugging Face model; None: it has none.
        config: of its Hugging Face model; None: it has none.
        tokenizer: of the model.

    Raises:
        DPCInterpError: no end token is named.
    """
    vars(model)[ATTRIBUTE] = named_end_tokens(generation_config, config, tokenizer)


def named_end_tokens(
    generation_config: GenerationConfig | None,
    config: PreTrainedConfig | None,
    tokenizer: PreTrainedTokenizerBase | None,
) -> tuple[int, ...]:
    """The end tokens that two configurations and a tokenizer name, as the module's table says.

    Args:
        generation_config: the first to be asked; None: there is none.
        config: asked where the first names no end token; None: there is none.
        tokenizer: asked where the first names no end token; None: there is none.

    Returns:
        At least one token id, each once. The tokenizer's EOS comes first where it is among them.

    Raises:
        DPCInterpError: no end token is named.
    """
    by_tokenizer = _ids(tokenizer)
    named = _ids(generation_config)
    if not named:
        by_config = _ids(config)
        # a configuration that does not name an end token has the default of its class, a token of another vocabulary
        if config is not None and by_config != _ids(type(config)()):
            named = by_config
        named += by_tokenizer
    if not named:
        raise DPCInterpError(
            "neither generation_config.json, config.json nor the tokenizer names an end token, so no text would end; "
            'put "eos_token_id" into generation_config.json'
        )
    first = tuple(token for token in by_tokenizer if token in named)
    return tuple(dict.fromkeys(first + named))


def _ids(source: Any) -> tuple[int, ...]:
    """The end tokens that one source names; negative ones, which mean none, are left out."""
    named = getattr(source, "eos_token_id", None)
    listed = named if isinstance(named, (list, tuple)) else [] if named is None else [named]
    return tuple(int(token) for token in listed if int(token) >= 0)
