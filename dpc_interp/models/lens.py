"""The differences between TransformerLens 3.9 and 4.

| | 3.9 | 4 |
| --- | --- | --- |
| `HookedTransformer`, its configuration, layers and weight conversions (`families.py`) | yes | no, only bridges |
| `get_official_model_name` | `loading_from_pretrained` | `supported_models` |

No other module checks which version is installed. On 4, `HookedTransformer` is an empty placeholder class, so that
`isinstance` checks and annotations are valid on both.
"""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from dpc_interp.errors import DPCInterpError

HAS_HOOKED = find_spec("transformer_lens.HookedTransformer") is not None
"""Whether the installed TransformerLens has `HookedTransformer`."""

if TYPE_CHECKING or HAS_HOOKED:
    from transformer_lens import HookedTransformer as HookedTransformer
    from transformer_lens.components import Attention, GroupedQueryAttention
    from transformer_lens.loading_from_pretrained import get_official_model_name

    ATTENTION_CLASSES: tuple[Any, ...] = (Attention, GroupedQueryAttention)
    """The attention layers of a HookedTransformer whose products are the usual ones."""
else:
    from transformer_lens.supported_models import get_official_model_name

    ATTENTION_CLASSES = ()

    class HookedTransformer:
        """Placeholder, so that `isinstance` is False for every model on TransformerLens 4."""


def need_hooked() -> None:
    """Check that the installed TransformerLens has `HookedTransformer`.

    Raises:
        DPCInterpError: it has only bridges.
    """
    if not HAS_HOOKED:
        raise DPCInterpError(
            f'backend="hooked" needs TransformerLens 3, and {version("transformer-lens")} is installed; '
            'use backend="bridge", or run pip install "transformer-lens>=3.9,<4"'
        )


def official_name(name: str) -> str | None:
    """TransformerLens's official name of a model.

    Args:
        name: an official name or one of its aliases.

    Returns:
        The official name; None where TransformerLens does not list the model.
    """
    try:
        return str(get_official_model_name(name))
    except ValueError:
        return None
