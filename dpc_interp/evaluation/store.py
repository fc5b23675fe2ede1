"""Results on disk: a folder a run, in it a folder a stage, in it a folder a shard, which is there whole or not at all.

    manifest.json                                  options; versions; hashes of model, prompt and problems (in a grid's
                                                   folder: versions; the options of a cell beside its rows)
    timings.jsonl                                  seconds, tokens and worker of each shard that was made
    pt-0f3a.../00000-of-00002/answers.parquet      a frame of a shard; digests.json beside it: what its bytes must be

A shard is written beside, synced and renamed: a kill or a power cut loses at most the one that is being made. A run
started again with the same options takes what is there and computes the rest, the same shards whatever was lost; other
options and versions are refused, and a damaged shard is named and computed again. Equal runs have equal bytes in all
files but timings.jsonl. A `SharedStore` holds the stages of many options side by side: the name of each tells what it
depends on.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import pandas as pd

import dpc_interp
from dpc_interp.errors import DPCInterpError
from dpc_interp.evaluation.atomic import beside, remove, remove_abandoned, told_in_one_line, write
from dpc_interp.evaluation.engine import Done, Frames

MANIFEST, TIMINGS, DIGESTS = "manifest.json", "timings.jsonl", "digests.json"
SHARD = re.compile(r"(\d{5})-of-(\d{5})")
Shard = TypeVar("Shard")
Timing = Mapping[str, object]


class RunStore:
    """Stages of a run in `folder`; without a folder every stage is computed and nothing is kept.

    Raises:
        DPCInterpError: the folder holds a run of other options or versions or stages of an ablation, or cannot be
            written to.
    """

    kind = "a single run of evaluate"

    def __init__(self, folder: str | Path | None, options: Mapping[str, object]):
        self.folder = None if folder is None else Path(folder)
        self._told: list[Timing] = []
        if self.folder is None:
            return
        with told_in_one_line(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_abandoned(self.folder)
            wanted = json.loads(json.dumps({"holds": self.kind, "versions": versions(), **options}))
            manifest = self.folder / MANIFEST
            if not manifest.exists():
                if any(self.folder.glob("*.parquet")) or any(self.folder.glob("*/*-of-*")):
                    raise DPCInterpError(f"{self.folder} holds stages without a {MANIFEST}; choose another folder")
                self._write_json(manifest, wanted)
            _compare(self.folder, _read_manifest(manifest), wanted)

    def stage(self, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The frame of a stage that is a single shard: read where it is stored, else made and stored."""
        made = self.sharded(name, [None], lambda _: [Done(0, {"rows": make()}, 0.0, "")])
        return made["rows"]

    def sharded(
        self,
        stage: str,
        shards: Sequence[Shard],
        make: Callable[[Sequence[Shard]], Iterable[Done]],
        tokens: Callable[[Frames], int] | None = None,
    ) -> Frames:
        """The frames of a stage, those of its shards joined in their order.

        Args:
            shards: what each is made of; the same ones in every run of this stage.
            make: yields each of the shards it is given that are not stored, in any order; each is stored at once.
            tokens: counts those of a shard, whose timing is then told; None: it is not.
        """
        n = len(shards)
        found = {k: frames for k in range(n) if (frames := self._read(stage, k, n)) is not None}
        missing = [k for k in range(n) if k not in found]
        try:
            for done in make([shards[k] for k in missing]) if missing else ():
                k = missing[done.index]
                if tokens is not None:
                    timing = {"seconds": done.seconds, "tokens": tokens(done.frames), "worker": done.worker}
                    self._tell({"stage": stage, "shard": k} | timing)
                found[k] = self._keep(stage, k, n, done.frames)
        except KeyboardInterrupt as stop:
            if self.folder is None or stop.args:  # else told by a stage within this one
                raise
            kept = f"{len(found)} of the {n} shards of {stage} are kept in {self.folder}"
            raise KeyboardInterrupt(f"stopped; {kept}: go on by the same call") from None
        if n == 1:
            return found[0]
        return {name: pd.concat([found[k][name] for k in range(n)], ignore_index=True) for name in found[0]}

    def describe(self, stage: str, options: Mapping[str, object]) -> None:
        """Write beside a stage what it was made with; its name has a hash of it."""
        if self.folder is not None and not (manifest := self.folder / stage / MANIFEST).exists():
            with told_in_one_line(self.folder):
                self._write_json(manifest, options)

    def begun(self, stage: str) -> bool:
        """Whether some shard of a stage is stored."""
        return self.folder is not None and any((self.folder / stage).glob("*-of-*"))

    def stored(self, prefix: str) -> Iterator[tuple[bool, Frames]]:
        """The shards stored of the stages whose names begin so, by name, and whether their stage is whole."""
        found = [] if self.folder is None else sorted(self.folder.glob(f"{prefix}*"))
        for folder in (path for path in found if path.is_dir()):
            named = [match for path in sorted(folder.iterdir()) if (match := SHARD.fullmatch(path.name))]
            read = [self._read(folder.name, int(match[1]), int(match[2])) for match in named]
            whole = bool(named) and None not in read and len(read) == int(named[0][2])
            yield from ((whole, frames) for frames in read if frames is not None)

    def timings(self) -> pd.DataFrame:
        """Seconds and tokens of each stage, summed over its shards, whichever process made them."""
        told = self._told
        if self.folder is not None and (file := self.folder / TIMINGS).exists():
            told = [timing for line in file.read_text().splitlines() if (timing := _parsed(line)) is not None]
        if not told:
            return pd.DataFrame(columns=["stage", "seconds", "tokens"])
        last = pd.DataFrame(told).drop_duplicates(["stage", "shard"], keep="last")  # made again: lost or damaged
        return last.groupby("stage", sort=False)[["seconds", "tokens"]].sum().reset_index()

    def _tell(self, timing: Timing) -> None:
        self._told.append(timing)
        if self.folder is not None:
            line = (json.dumps(timing) + "\n").encode()
            with told_in_one_line(self.folder), (self.folder / TIMINGS).open("ab+") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read() != b"\n":  # a power cut left half a line
                        line = b"\n" + line
                file.write(line)  # at the end and at once, so that processes can share the file

    def _write_json(self, path: Path, told: Mapping[str, object]) -> None:
        assert self.folder is not None
        with beside(path, self.folder) as partial:
            write(partial, (json.dumps(told, indent=1, sort_keys=True) + "\n").encode())

    def _keep(self, stage: str, k: int, n: int, frames: Frames) -> Frames:
        """Store a shard; its frames as they are read again."""
        if self.folder is None:
            return frames
        whole = {f"{name}.parquet": frame.to_parquet(None) for name, frame in frames.items()}
        with told_in_one_line(self.folder), beside(self._path(stage, k, n), self.folder) as partial:
            partial.mkdir()
            for name, data in whole.items():
                write(partial / name, data)
            digests = {name: digest(data) for name, data in whole.items()}
            write(partial / DIGESTS, (json.dumps(digests, sort_keys=True) + "\n").encode())
        return _frames(whole)

    def _read(self, stage: str, k: int, n: int) -> Frames | None:
        """The frames of a shard; None where it is not stored, or damaged and thus removed."""
        if self.folder is None or not (path := self._path(stage, k, n)).exists():
            return None
        with told_in_one_line(self.folder):
            try:
                told = json.loads((path / DIGESTS).read_text())
                whole = {name: (path / name).read_bytes() for name in told}
                wrong = [name for name, data in whole.items() if digest(data) != told[name]]
                reason = f"{wrong[0]} has other bytes than were written" if wrong else ""
            except (FileNotFoundError, NotADirectoryError) as error:
                reason = f"it lacks {Path(error.filename).name}"
            except (ValueError, AttributeError, TypeError):
                reason = f"{DIGESTS} cannot be read"
            if reason:
                warnings.warn(f"{path} is damaged ({reason}) and is computed again", stacklevel=2)
                remove(path)
                return None
        return _frames(whole)

    def _path(self, stage: str, k: int, n: int) -> Path:
        assert self.folder is not None
        return self.folder / stage / f"{k:05}-of-{n:05}"


class SharedStore(RunStore):
    """Stages of many options, each made or read once and then held, with or without a folder.

    Raises:
        DPCInterpError: the folder is that of a single run or of other versions, or cannot be written to.
    """

    kind = "the stages of an ablation"

    def __init__(self, folder: str | Path | None):
        super().__init__(folder, {})
        self._held: dict[str, Frames] = {}

    def sharded(
        self,
        stage: str,
        shards: Sequence[Shard],
        make: Callable[[Sequence[Shard]], Iterable[Done]],
        tokens: Callable[[Frames], int] | None = None,
    ) -> Frames:
        """The frames of a stage; they are not to be written to."""
        if stage not in self._held:
            self._held[stage] = super().sharded(stage, shards, make, tokens)
        return self._held[stage]


def versions() -> dict[str, str]:
    """Versions of what results depend on."""
    others = {name: metadata.version(name) for name in ("torch", "transformer-lens", "transformers")}
    return {"dpc_interp": dpc_interp.__version__, **others}


def digest(*parts: bytes) -> str:
    """A short hash of byte strings, for manifests."""
    whole = hashlib.blake2b(digest_size=8)
    for part in parts:
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()


def _read_manifest(path: Path) -> dict[str, object]:
    try:
        stored = json.loads(path.read_text())
    except ValueError:
        stored = None
    if not isinstance(stored, dict):
        raise DPCInterpError(f"{path} is damaged, so what the run depends on is unknown; choose another folder")
    return stored


def _compare(folder: Path, stored: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Refuse a folder that holds something else, another version first."""
    if stored.get("holds") != wanted["holds"]:
        raise DPCInterpError(f"{folder} holds {stored.get('holds', 'a run of another version')}; choose another folder")
    flat = [_flat(manifest) for manifest in (stored, wanted)]
    differing = sorted(key for key in {*flat[0], *flat[1]} if flat[0].get(key) != flat[1].get(key))
    other = [key for key in differing if key.startswith("version of ")] or differing
    if other:
        told = ", ".join(other[:4]) + (f" and {len(other) - 4} more" if len(other) > 4 else "")
        raise DPCInterpError(f"{folder} holds a run with another {told}; choose another folder or remove it")


def _flat(manifest: Mapping[str, object]) -> dict[str, object]:
    of = manifest.get("versions")
    told = {f"version of {name}": version for name, version in of.items()} if isinstance(of, dict) else {}
    return {key: value for key, value in manifest.items() if key != "versions"} | told


def _frames(files: Mapping[str, bytes]) -> Frames:
    return {name.removesuffix(".parquet"): pd.read_parquet(BytesIO(data)) for name, data in files.items()}


def _parsed(line: str) -> Timing | None:
    """One timing; None where a power cut left half a line."""
    try:
        return json.loads(line)
    except ValueError:
        return None
