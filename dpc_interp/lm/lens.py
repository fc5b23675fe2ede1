"""What TransformerLens 3.9 and 4 have in different places, or only one of them has at all.

| | 3.9 | 4 |
| --- | --- | --- |
| `HookedTransformer`, its configuration and weight conversions (`families.py`) | yes | no: bridges alone |
| `get_official_model_name` | `loading_from_pretrained` | `supported_models` |

No other module asks which version is installed. On 4 `HookedTransformer` is a class that no model has, so that
`isinstance` and annotations mean what they say on both.
"""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from dpc_interp.errors import DPCInterpError

HAS_HOOKED = find_spec("transformer_lens.HookedTransformer") is not None
"""Whether the installed TransformerLens has `HookedTransformer`."""

if TYPE_CHECKING or HAS_HOOKED:
    from transformer_lens import HookedTransformer as HookedTransformer
    from transformer_lens.loading_from_pretrained import get_official_model_name
else:
    from transformer_lens.supported_models import get_official_model_name

    class HookedTransformer:
        """What no model is where TransformerLens has none."""


def need_hooked() -> None:
    """Refuse where the installed TransformerLens has no `HookedTransformer`."""
    if not HAS_HOOKED:
        raise DPCInterpError(
            f'backend="hooked" needs TransformerLens 3, and {version("transformer-lens")} is installed; '
            'take backend="bridge", or run pip install "transformer-lens>=3.9,<4"'
        )


def official_name(name: str) -> str | None:
    """TransformerLens's official name for a name or an alias; None: it lists no such model."""
    try:
        return str(get_official_model_name(name))
    except ValueError:
        return None
