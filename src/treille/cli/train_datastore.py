"""`treille train datastore`."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from treille.drafters._datastore import Header

CHUNK_TOKENS = 8_000_000


def datastore(
    files: Annotated[list[Path], typer.Argument(help="Texts: a file each, or in .jsonl one per line.")],
    out: Annotated[Path, typer.Option(help="Directory to write; must not hold anything.")],
    model: Annotated[
        str | None, typer.Option(help="Whose texts are to be drafted: directory or Hub name [default: the bundled model].")
    ] = None,
    chunk_tokens: Annotated[int, typer.Option(help="Tokens sorted at once; each takes 50 bytes.")] = CHUNK_TOKENS,
) -> None:
    """Build the datastore that the drafters retrieval and rasd search."""
