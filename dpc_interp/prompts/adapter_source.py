"""Where an adapter is: a folder, a subfolder of it, or a repository on the Hugging Face Hub.

A name on the Hub is `owner/name`, `owner/name/subfolder`, `owner/name@revision` or `owner/name/subfolder@revision`.
Everything after `@` is the revision, so that `@refs/pr/1` works.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError

from dpc_interp.errors import DPCInterpError
from dpc_interp.hub import hub_is_reachable
from dpc_interp.prompts.adapter import CONFIG, LEGACY_WEIGHTS, RECIPE, WEIGHTS, read_config

HUB_NAME = re.compile(r"(\w[\w.-]*/\w[\w.-]*)((?:/\w[\w.-]*)*)(?:@(\w[\w./-]*))?")
MAX_NAMED = 3
"""The most subfolders that an error message names."""


class HubAdapter(NamedTuple):
    """An adapter on the Hub.

    Attributes:
        repository: `owner/name`.
        subfolder: folder of the adapter in the repository; empty: its root.
        revision: branch, tag or commit; None: the main branch.
    """

    repository: str
    subfolder: str
    revision: str | None


def parse_hub_name(name: str, subfolder: str | None = None, revision: str | None = None) -> HubAdapter | None:
    """Split a name on the Hub into its parts.

    Args:
        name: in one of the forms above.
        subfolder: folder of the adapter, where the name has none.
        revision: branch, tag or commit, where the name has none.

    Returns:
        The parts; None: the name has none of these forms.

    Raises:
        DPCInterpError: the name has another subfolder or revision than the arguments.
    """
    match = HUB_NAME.fullmatch(name)
    if match is None:
        return None
    in_name = {"subfolder": match[2].removeprefix("/"), "revision": match[3] or ""}
    for option, value in (("subfolder", subfolder), ("revision", revision)):
        if value and in_name[option] not in ("", value):
            raise DPCInterpError(f"{name!r} already has the {option} {in_name[option]!r}; leave out {option}=")
        in_name[option] = in_name[option] or value or ""
    join_subfolder(Path(match[1]), in_name["subfolder"])
    return HubAdapter(match[1], in_name["subfolder"], in_name["revision"] or None)


def join_subfolder(folder: Path, subfolder: str | None) -> Path:
    """The folder of an adapter in a folder.

    Args:
        folder: any folder.
        subfolder: path within it; None or empty: the folder itself.

    Raises:
        DPCInterpError: the path leads out of the folder.
    """
    parts = PurePosixPath(subfolder or "")
    if parts.is_absolute() or ".." in parts.parts:
        raise DPCInterpError(f"subfolder={subfolder!r} leads out of the folder of the adapter; give a path within it")
    return folder / parts


def check_has_adapter(folder: Path, place: str) -> None:
    """Check that a folder has the configuration of an adapter.

    Args:
        folder: any folder.
        place: the folder as the user knows it.

    Raises:
        DPCInterpError: it has none; subfolders that have one are named.
    """
    if (folder / CONFIG).is_file():
        return
    subfolders = sorted((str(file.parent.relative_to(folder)) for file in folder.glob(f"**/{CONFIG}")), key=_by_number)
    if not subfolders:
        raise DPCInterpError(f"{place} lacks {CONFIG}; give a PEFT adapter folder")
    named = ", ".join(repr(subfolder) for subfolder in subfolders[:MAX_NAMED])
    more = f" and {len(subfolders) - MAX_NAMED} more" if len(subfolders) > MAX_NAMED else ""
    raise DPCInterpError(f"{place} lacks {CONFIG}, which is in its subfolder {named}{more}; give subfolder=")


def _by_number(name: str) -> list[tuple[int, str]]:
    """Sort key by which `checkpoint-500` comes before `checkpoint-1000`."""
    return [(int(part or 0), part) if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def fetch_adapter(adapter: HubAdapter) -> Path:
    """Download an adapter from the Hugging Face Hub, or find it in the local cache.

    Args:
        adapter: where it is.

    Returns:
        The folder of the adapter in the cache.

    Raises:
        DPCInterpError: another type of adapter, or the Hub cannot be reached or has no such adapter.
    """
    repository, subfolder, revision = adapter
    cache_only = not hub_is_reachable()
    place = "/".join(filter(None, [repository, subfolder])) + (f"@{revision}" if revision else "")

    def download(*patterns: str) -> Path:
        root = snapshot_download(
            repository, revision=revision, allow_patterns=list(patterns), local_files_only=cache_only
        )
        return join_subfolder(Path(root), subfolder)

    inside = f"{subfolder}/" if subfolder else ""
    configuration = [inside + CONFIG, inside + RECIPE]
    try:
        # configuration first: another type of adapter is rejected before its weights are downloaded
        folder = download(*configuration)
        if not (folder / CONFIG).is_file():
            folder = download(f"{inside}*/{CONFIG}")  # to name the subfolders that hold an adapter
        check_has_adapter(folder, place)
        read_config(folder)
        return download(*configuration, inside + WEIGHTS, inside + LEGACY_WEIGHTS)
    except (OSError, HFValidationError) as error:
        raise DPCInterpError(
            f"{place!r} is not a local folder and cannot be fetched from the Hub ({type(error).__name__}); "
            "download the adapter and give its folder"
        ) from error
