"""Execute notebooks in place, as `make notebooks` does. Outputs of progress bars are removed."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

WIDGET = "application/vnd.jupyter.widget-view+json"


def main() -> None:
    """Execute the notebooks named on the command line."""
    for path in map(Path, sys.argv[1:]):
        notebook = nbformat.read(path, as_version=4)
        resources = {"metadata": {"path": str(path.parent)}}
        NotebookClient(notebook, store_widget_state=False, record_timing=False, resources=resources).execute()
        notebook.metadata.pop("widgets", None)
        for cell in notebook.cells:
            if "outputs" in cell:
                cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
