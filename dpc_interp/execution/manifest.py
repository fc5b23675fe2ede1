"""Manifests: what the results in a run folder depend on, so that a run is never resumed with other settings.

`manifest.json` holds the kind of the folder (`holds`), the package versions and the options. A call that differs in any
of them raises an error that names the difference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from dpc_interp.errors import DPCInterpError

MANIFEST = "manifest.json"
VERSIONED = ("dpc_interp", "torch", "transformer-lens", "transformers")
"""Packages whose version is part of a manifest."""
MAX_LISTED = 4
"""Differences that an error message lists by name."""

Manifest = Mapping[str, object]


def versions() -> dict[str, str]:
    """The installed versions of the packages that results depend on, by package name."""
    return {name: metadata.version(name) for name in VERSIONED}


def run_manifest(kind: str, options: Mapping[str, object]) -> Manifest:
    """The manifest of a run folder, with the types that JSON gives back.

    Args:
        kind: what the folder holds, in words.
        options: JSON values by name.
    """
    return json.loads(json.dumps({"holds": kind, "versions": versions(), **options}))


def manifest_bytes(manifest: Manifest) -> bytes:
    """A manifest as it is stored; equal manifests have equal bytes."""
    return (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()


def read_manifest(path: Path) -> Manifest:
    """Read a stored manifest.

    Args:
        path: of the file.

    Raises:
        DPCInterpError: the file is damaged.
    """
    try:
        stored = json.loads(path.read_text())
    except ValueError:
        stored = None
    if not isinstance(stored, dict):
        raise DPCInterpError(f"{path} is damaged, so what the run depends on is unknown; choose another folder")
    return stored


def check_manifest(folder: Path, stored: Manifest, expected: Manifest) -> None:
    """Check that a run folder was made with the settings of the present call.

    Args:
        folder: named in the message.
        stored: manifest of the folder.
        expected: manifest of the present call.

    Raises:
        DPCInterpError: the folder holds results of another kind, other versions or other options. Only the versions are
            named where both versions and options differ.
    """
    if stored.get("holds") != expected["holds"]:
        raise DPCInterpError(f"{folder} holds {stored.get('holds', 'a run of another version')}; choose another folder")
    stored_values, expected_values = _flatten_versions(stored), _flatten_versions(expected)
    names = {*stored_values, *expected_values}
    differing = sorted(name for name in names if stored_values.get(name) != expected_values.get(name))
    # another version may have added or removed options, so it is the cause to report
    reported = [name for name in differing if name.startswith("version of ")] or differing
    if reported:
        n_more = len(reported) - MAX_LISTED
        listed = ", ".join(reported[:MAX_LISTED]) + (f" and {n_more} more" if n_more > 0 else "")
        raise DPCInterpError(f"{folder} holds a run with another {listed}; choose another folder or remove it")


def _flatten_versions(manifest: Manifest) -> dict[str, object]:
    """The manifest with an entry `version of NAME` for each package instead of `versions`."""
    stored_versions = manifest.get("versions")
    by_package = stored_versions.items() if isinstance(stored_versions, dict) else ()
    options = {name: value for name, value in manifest.items() if name != "versions"}
    return options | {f"version of {package}": version for package, version in by_package}
