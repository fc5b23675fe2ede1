"""Results on disk: one folder a run, one parquet file a stage, written whole or not at all.

A run started again with the same options takes what is there and computes the rest; other options are refused. A
`SharedStore` holds the stages of many options side by side: the name of each tells what it depends on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from dpc_interp.errors import DPCInterpError

MANIFEST = "manifest.json"


class RunStore:
    """Stages of a run in `folder`; without a folder every stage is computed and nothing is kept."""

    def __init__(self, folder: str | Path | None, options: Mapping[str, object]):
        self.folder = None if folder is None else Path(folder)
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        manifest = self.folder / MANIFEST
        wanted = json.loads(json.dumps(dict(options), sort_keys=True))
        if not manifest.exists():
            if any(self.folder.glob("*.parquet")):
                raise DPCInterpError(f"{self.folder} holds the stages of an ablation; choose another folder")
            _write(manifest, lambda path: path.write_text(json.dumps(wanted, indent=1, sort_keys=True) + "\n"))
            return
        stored = json.loads(manifest.read_text())
        differing = sorted(key for key in {*stored, *wanted} if stored.get(key) != wanted.get(key))
        if differing:
            raise DPCInterpError(
                f"{self.folder} holds a run with another {', '.join(differing)}; choose another folder or remove it"
            )

    def stage(self, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The frame of a stage: read where it is stored, else made and stored."""
        if self.folder is None:
            return make()
        path = self.folder / f"{name}.parquet"
        if not path.exists():
            frame = make()
            _write(path, frame.to_parquet)
        return pd.read_parquet(path)

    def stored(self, prefix: str) -> list[pd.DataFrame]:
        """The frames of the stages whose names begin with `prefix`, in the order of their names."""
        if self.folder is None:
            return []
        return [pd.read_parquet(path) for path in sorted(self.folder.glob(f"{prefix}*.parquet"))]


class SharedStore(RunStore):
    """Stages of many options, each made or read once and then held, with or without a folder.

    Raises:
        DPCInterpError: the folder is that of a single run.
    """

    def __init__(self, folder: str | Path | None):
        self.folder = None if folder is None else Path(folder)
        self._held: dict[str, pd.DataFrame] = {}
        if self.folder is not None:
            if (self.folder / MANIFEST).exists():
                raise DPCInterpError(f"{self.folder} holds a single run of evaluate; choose another folder")
            self.folder.mkdir(parents=True, exist_ok=True)

    def stage(self, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The frame of a stage; it is not to be written to."""
        if name not in self._held:
            self._held[name] = super().stage(name, make)
        return self._held[name]


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside `path`, then rename: a reader sees the whole file or none."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    write(partial)
    partial.replace(path)


def digest(*parts: bytes) -> str:
    """A short hash of byte strings, for manifests."""
    whole = hashlib.blake2b(digest_size=8)
    for part in parts:
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()
