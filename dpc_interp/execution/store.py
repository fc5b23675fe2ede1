"""`RunStore`: results on disk, a folder for each run, in it a folder for each stage, in it a folder for each shard.

    manifest.json                                  options, versions and hashes of model, prompt and problems
    timings.jsonl                                  seconds, tokens and worker of each shard that was computed
    pt-0f3a.../00000-of-00002/answers.parquet      a frame of a shard
    pt-0f3a.../00000-of-00002/digests.json         a hash of each frame's file

A shard is written atomically: a kill or a power cut loses at most the shard that is being computed. A run started again
with the same options reads the stored shards and computes the others; the shards are the same whatever was lost. Other
options or versions raise an error; a damaged shard is reported and computed again. Equal runs have equal bytes in all
files except timings.jsonl.

A `SharedStore` holds the stages of many settings. The name of each stage then contains a hash of what it depends on,
and a cell of a grid has its options in a manifest of its own.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import pandas as pd

from dpc_interp.errors import DPCInterpError
from dpc_interp.execution.atomic import (
    append_line,
    atomic_path,
    os_errors_as_dpc_errors,
    remove,
    remove_abandoned,
    write,
    write_atomically,
)
from dpc_interp.execution.digest import digest
from dpc_interp.execution.engine import Frames, JobResult
from dpc_interp.execution.manifest import MANIFEST, check_manifest, manifest_bytes, read_manifest, run_manifest

TIMINGS, DIGESTS = "timings.jsonl", "digests.json"
SHARD_NAME = re.compile(r"(\d{5})-of-(\d{5})")

Shard = TypeVar("Shard")
Timing = Mapping[str, object]


class RunStore:
    """The stages of one run.

    Args:
        folder: folder of the run; None: every stage is computed and nothing is stored.
        options: JSON values by name, everything that results depend on.

    Raises:
        DPCInterpError: the folder holds a run of other options or versions or stages of an ablation, or it cannot be
            written to.
    """

    kind = "a single run of evaluate"

    def __init__(self, folder: str | Path | None, options: Mapping[str, object]):
        self.folder = None if folder is None else Path(folder)
        self._timings: list[Timing] = []
        if self.folder is None:
            return
        with os_errors_as_dpc_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_abandoned(self.folder)
            expected = run_manifest(self.kind, options)
            manifest = self.folder / MANIFEST
            if not manifest.exists():
                if any(self.folder.glob("*.parquet")) or any(self.folder.glob("*/*-of-*")):
                    raise DPCInterpError(f"{self.folder} holds stages without a {MANIFEST}; choose another folder")
                write_atomically(manifest, manifest_bytes(expected), self.folder)
            check_manifest(self.folder, read_manifest(manifest), expected)

    def stage(self, name: str, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The frame of a stage that is a single shard, read if it is stored, otherwise computed and stored.

        Args:
            name: name of the stage.
            compute: computes the frame.
        """
        return self.sharded(name, [None], lambda _: [JobResult(0, {"rows": compute()}, 0.0, "")])["rows"]

    def sharded(
        self,
        stage: str,
        shards: Sequence[Shard],
        compute: Callable[[Sequence[Shard]], Iterable[JobResult[Frames]]],
        count_tokens: Callable[[Frames], int] | None = None,
    ) -> Frames:
        """The frames of a stage: stored shards are read, the others computed, all joined in the order of `shards`.

        Args:
            stage: name of the stage.
            shards: the input of each shard, the same in every run of the stage.
            compute: yields the result of each missing shard, in any order; each is stored at once.
            count_tokens: the tokens of a shard, from its frames, for `timings`; None: the stage is not timed.

        Raises:
            KeyboardInterrupt: the user stopped the run; the message says how many shards are stored.
            DPCInterpError: the folder cannot be written to.
        """
        n = len(shards)
        frames_of = {k: frames for k in range(n) if (frames := self._read_shard(stage, k, n)) is not None}
        missing = [k for k in range(n) if k not in frames_of]
        try:
            for result in compute([shards[k] for k in missing]) if missing else ():
                k = missing[result.index]
                if count_tokens is not None:
                    # before the shard is stored: a kill in between leaves an extra timing, which `timings` drops
                    n_tokens = count_tokens(result.value)
                    timing = {"seconds": result.seconds, "tokens": n_tokens, "worker": result.worker}
                    self._record_timing({"stage": stage, "shard": k} | timing)
                frames_of[k] = self._write_shard(stage, k, n, result.value)
        except KeyboardInterrupt as stop:
            if self.folder is None or stop.args:  # a stage inside this one has given its message already
                raise
            stored = f"{len(frames_of)} of the {n} shards of {stage} are stored in {self.folder}"
            raise KeyboardInterrupt(f"stopped; {stored}: make the same call again to resume") from None
        if n == 1:
            return frames_of[0]
        return {name: pd.concat([frames_of[k][name] for k in range(n)], ignore_index=True) for name in frames_of[0]}

    def write_manifest(self, stage: str, options: Mapping[str, object]) -> None:
        """Store the options of a stage whose name contains only a hash of them; nothing is done without a folder.

        Args:
            stage: name of a stored stage.
            options: JSON values by name.
        """
        if self.folder is not None and not (manifest := self.folder / stage / MANIFEST).exists():
            with os_errors_as_dpc_errors(self.folder):
                write_atomically(manifest, manifest_bytes(options), self.folder)

    def has_shards(self, stage: str) -> bool:
        """Whether at least one shard of a stage is stored."""
        return self.folder is not None and any((self.folder / stage).glob("*-of-*"))

    def stored(self, prefix: str) -> Iterator[tuple[bool, Frames]]:
        """Yield the stored shards of all stages whose name begins with `prefix`, in the order of their names.

        Args:
            prefix: prefix of stage names.

        Yields:
            Whether all shards of the stage are stored; the frames of one shard.
        """
        paths = [] if self.folder is None else sorted(self.folder.glob(f"{prefix}*"))
        for folder in (path for path in paths if path.is_dir()):
            names = [match for path in sorted(folder.iterdir()) if (match := SHARD_NAME.fullmatch(path.name))]
            shards = [self._read_shard(folder.name, int(name[1]), int(name[2])) for name in names]
            is_complete = bool(names) and None not in shards and len(shards) == int(names[0][2])
            yield from ((is_complete, frames) for frames in shards if frames is not None)

    def timings(self) -> pd.DataFrame:
        """The cost of each timed stage, summed over its shards, including shards computed by earlier processes.

        Returns:
            `stage`, `seconds` and `tokens`, one row a stage. Of a shard that was computed more than once, because it
            was lost or damaged, the last timing counts.
        """
        timings = self._timings
        if self.folder is not None and (file := self.folder / TIMINGS).exists():
            timings = [timing for line in file.read_text().splitlines() if (timing := _parse_timing(line)) is not None]
        if not timings:
            return pd.DataFrame(columns=["stage", "seconds", "tokens"])
        last = pd.DataFrame(timings).drop_duplicates(["stage", "shard"], keep="last")
        return last.groupby("stage", sort=False)[["seconds", "tokens"]].sum().reset_index()

    def _record_timing(self, timing: Timing) -> None:
        """Keep a timing, and append it to the file of the run."""
        self._timings.append(timing)
        if self.folder is not None:
            with os_errors_as_dpc_errors(self.folder):
                append_line(self.folder / TIMINGS, json.dumps(timing))

    def _write_shard(self, stage: str, k: int, n: int, frames: Frames) -> Frames:
        """Store shard `k` of `n`; the frames as a resumed run will read them, so that both continue with equal ones."""
        if self.folder is None:
            return frames
        files = {f"{name}.parquet": frame.to_parquet(None) for name, frame in frames.items()}
        with os_errors_as_dpc_errors(self.folder), atomic_path(self._path(stage, k, n), self.folder) as partial:
            partial.mkdir()
            for name, data in files.items():
                write(partial / name, data)
            digests = {name: digest(data) for name, data in files.items()}
            write(partial / DIGESTS, (json.dumps(digests, sort_keys=True) + "\n").encode())
        return _parse_frames(files)

    def _read_shard(self, stage: str, k: int, n: int) -> Frames | None:
        """The frames of shard `k` of `n`; None if it is not stored, or is damaged and was therefore removed."""
        if self.folder is None or not (path := self._path(stage, k, n)).exists():
            return None
        with os_errors_as_dpc_errors(self.folder):
            try:
                digests = json.loads((path / DIGESTS).read_text())
                files = {name: (path / name).read_bytes() for name in digests}
                changed = [name for name, data in files.items() if digest(data) != digests[name]]
                damage = f"the bytes of {changed[0]} have changed" if changed else ""
            except (FileNotFoundError, NotADirectoryError) as error:
                damage = f"{Path(error.filename).name} is missing"
            except (ValueError, AttributeError, TypeError):
                damage = f"{DIGESTS} cannot be read"
            if damage:
                warnings.warn(f"{path} is damaged ({damage}) and is computed again", stacklevel=2)
                remove(path)
                return None
        return _parse_frames(files)

    def _path(self, stage: str, k: int, n: int) -> Path:
        assert self.folder is not None
        return self.folder / stage / f"{k:05}-of-{n:05}"


class SharedStore(RunStore):
    """The stages of many settings; each is computed or read once and then held in memory, with or without a folder.

    Args:
        folder: folder of the ablation; None: stages are held in memory only.

    Raises:
        DPCInterpError: the folder is that of a single run or of other versions, or cannot be written to.
    """

    kind = "the stages of an ablation"

    def __init__(self, folder: str | Path | None):
        super().__init__(folder, {})
        self._frames: dict[str, Frames] = {}

    def sharded(
        self,
        stage: str,
        shards: Sequence[Shard],
        compute: Callable[[Sequence[Shard]], Iterable[JobResult[Frames]]],
        count_tokens: Callable[[Frames], int] | None = None,
    ) -> Frames:
        """See `RunStore.sharded`; later calls return the same frames, so do not modify them."""
        if stage not in self._frames:
            self._frames[stage] = super().sharded(stage, shards, compute, count_tokens)
        return self._frames[stage]


def _parse_frames(files: Mapping[str, bytes]) -> Frames:
    return {name.removesuffix(".parquet"): pd.read_parquet(BytesIO(data)) for name, data in files.items()}


def _parse_timing(line: str) -> Timing | None:
    """The timing of one line; None for half a line, which a power cut leaves."""
    try:
        return json.loads(line)
    except ValueError:
        return None
