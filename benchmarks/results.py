"""RESULTS.md: each part of the benchmark replaces its own section and keeps the sections of the others."""

from __future__ import annotations

import os
import platform
import re
from datetime import date
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

RESULTS = Path(__file__).parent / "RESULTS.md"
TITLE = "# What it costs\n\nWritten by `make bench`, never by hand; each section states its machine.\n"


def machine() -> str:
    """One line about the machine: processor, memory, threads, versions, load, date."""
    names = re.findall(r"^model name\s*: (.+)$", _read("/proc/cpuinfo"), flags=re.MULTILINE)
    processor = names[0] if names else platform.processor() or platform.machine()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformer-lens", "transformers"))
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{date.today()}, {device}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.0f} GB, "
        f"{torch.get_num_threads()} threads, Python {platform.python_version()}, {packages}; "
        f"load average at the end {load}."
    )


def write_section(name: str, text: str, path: Path = RESULTS) -> None:
    """Write a section of RESULTS.md, in place of the section of that name; sections are sorted by name.

    Args:
        name: the heading.
        text: Markdown under it.
        path: the file.
    """
    sections: dict[str, str] = {}
    if path.exists():
        _, *parts = re.split(r"^## ", path.read_text(), flags=re.MULTILINE)
        sections = {heading: body.strip() for heading, _, body in (part.partition("\n") for part in parts)}
    sections[name] = text.strip()
    written = [f"## {heading}\n\n{body}\n" for heading, body in sorted(sections.items())]
    path.write_text("\n".join([TITLE, *written]))


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""
