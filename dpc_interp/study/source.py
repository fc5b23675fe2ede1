"""Where the jobs of a study get their model: by its name, or as an object that is loaded already."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpc_interp.models.hooked import HookedModel
from dpc_interp.models.loading import load_model


@dataclass(frozen=True)
class ModelSource:
    """A model by what `load_model` takes, or a loaded one.

    Attributes:
        model: name, path or loaded model.
        keywords: of `load_model`, such as the device.
    """

    model: str | Path | HookedModel
    keywords: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_loaded(self) -> bool:
        """Whether the model cannot be sent to another process by its name."""
        return not isinstance(self.model, str | Path)

    @property
    def name(self) -> str:
        """The name of the model; of a path its last part."""
        if isinstance(self.model, str | Path):
            return Path(self.model).expanduser().name if Path(self.model).expanduser().exists() else str(self.model)
        return str(self.model.cfg.model_name)

    def load(self) -> HookedModel:
        """The model."""
        return load_model(self.model, **self.keywords) if isinstance(self.model, str | Path) else self.model


def folder_name(*parts: str) -> str:
    """A name for a folder: the parts with hyphens between them and in place of what a path may not contain."""
    return re.sub(r"[^\w.,+-]+", "-", "-".join(parts)).strip("-.") or "unnamed"
