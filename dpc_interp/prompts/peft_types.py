"""The types of PEFT adapters: which of them are vectors before the input, and why the others are not.

| type | tensors on disk |
| --- | --- |
| `PROMPT_TUNING` | `prompt_embeddings` [n_virtual, d_model], the vectors themselves |
| `P_TUNING` | the same: the prompt encoder has run before the adapter is saved |
| `CPT` | the same: the embedded context and its learned change are added before the adapter is saved |
| `MULTITASK_PROMPT_TUNING` | the same, and two factors of each task: `prefix_task_cols` [n_tasks, n_virtual, rank] |
| | and `prefix_task_rows` [n_tasks, rank, d_model] |

vectors of a task = prompt_embeddings * (prefix_task_cols[task] @ prefix_task_rows[task])

The reasons in `NOT_A_PROMPT` were checked against PEFT 0.21; a test walks PEFT's own list of types.
"""

from __future__ import annotations

MULTITASK = "MULTITASK_PROMPT_TUNING"
PROMPT_TYPES = ("PROMPT_TUNING", "P_TUNING", "CPT", MULTITASK)
"""PEFT types whose adapters are vectors before the input."""

MERGE = "it changes the model's weights: merge it (merge_and_unload), save that model and give it to load_model"
KEYS_AND_VALUES = "it writes keys and values into every layer, not vectors before the input; tune with PROMPT_TUNING"
NO_MERGE = "it cannot be merged into the weights; tune with PROMPT_TUNING"
# fmt: off
MERGED_TYPES = (
    "LORA", "ADALORA", "ADAMSS", "BOFT", "BONE", "C3A", "DEFT", "DELORA", "FOURIERFT", "FROD", "GLORA", "GRALORA",
    "HIRA", "HRA", "IA3", "LN_TUNING", "LOHA", "LOKR", "MISS", "OFT", "OSF", "PEANUT", "PSOFT", "PVERA", "RANDLORA",
    "ROAD", "SHIRA", "SUPERTUNING", "TINYLORA", "TRAINABLE_TOKENS", "UNILORA", "VBLORA", "VERA", "WAVEFT",
)
# fmt: on
"""PEFT types that `merge_and_unload` turns into weights of the model."""
NOT_A_PROMPT = {
    **dict.fromkeys(MERGED_TYPES, MERGE),
    "PREFIX_TUNING": KEYS_AND_VALUES,
    "CARTRIDGE": KEYS_AND_VALUES,
    "ADAPTION_PROMPT": f"it enters inside the attention of the upper layers, through a gate; {NO_MERGE}",
    "BEFT": "it changes biases of the model: merge it (merge_and_unload) where the layers have biases, save that model "
    "and give it to load_model",
    "LILY": f"a router mixes its weights anew for each input; {NO_MERGE}",
    "XLORA": f"a classifier mixes its LoRA adapters anew for each token; {NO_MERGE}",
    "POLY": f"it mixes low-rank weights by the task of each input; {NO_MERGE}",
    "SHADOW": f"a parallel network changes the input of the blocks; {NO_MERGE}",
}
"""PEFT type -> why such an adapter is not a soft prompt, and what to do about it."""
UNKNOWN_TYPE = f"only {', '.join(PROMPT_TYPES)} adapters are vectors before the input; tune with PROMPT_TUNING"
"""The reason for a type that this version does not know."""


def refusal_reason(peft_type: object) -> str | None:
    """Why an adapter of a type is not a soft prompt.

    Args:
        peft_type: `peft_type` of the adapter's configuration.

    Returns:
        The reason and what to do about it; None: such adapters are soft prompts.
    """
    if peft_type in PROMPT_TYPES:
        return None
    return NOT_A_PROMPT.get(str(peft_type), UNKNOWN_TYPE)
