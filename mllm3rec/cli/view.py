"""`mllm3rec view`: a local web page over all runs, studies, comparisons and compiles below a folder."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from mllm3rec.cli.console import emit, out
from mllm3rec.cli.options import Json


def view(
    folder: Annotated[Path, typer.Argument(help="Folder that your runs are in.")] = Path(),
    cases: Annotated[
        list[Path] | None, typer.Option(help="Cases file, or a folder of some, that lies elsewhere; may be repeated.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 for any that is free.")] = 8765,
    as_json: Json = False,
) -> None:
    """Show runs, users, prompts, costs and compiles in a browser, also while they run, until Ctrl-C.

    The page is served to this machine only, and sends no request to others.
    """
    from programs.runtime.errors import require_extra

    require_extra("nicegui", "view", "mllm3rec view")
    from mllm3rec.view.library import Library
    from mllm3rec.view.server import listen, serve_view

    library = Library(folder, cases or ())
    found = Counter(one.kind for one in library.contents.found)
    with listen(port) as listening:
        host, taken = listening.getsockname()
        address = f"http://{host}:{taken}/"
        if as_json:
            emit({"address": address, "folder": str(library.root), "found": found})
        else:
            counts = ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in found.items() if count)
            out.print(f"{library.root}: {counts or 'nothing yet'}")
            out.print(f"{address} (Ctrl-C ends it)")
        with suppress(KeyboardInterrupt):  # how it is meant to end
            serve_view(library, listening)
