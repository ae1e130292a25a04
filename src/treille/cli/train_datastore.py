"""`treille train datastore`."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import Annotated

import typer

CHUNK_TOKENS = 8_000_000


def datastore(
    files: Annotated[list[Path], typer.Argument(help="Texts: each file is one; a .jsonl file has one per line.")],
    out: Annotated[Path, typer.Option(help="Directory to write; it must be new or empty.")],
    model: Annotated[
        str | None, typer.Option(help="Whose texts will be drafted: directory or Hub name [default: the bundled one].")
    ] = None,
    chunk_tokens: Annotated[int, typer.Option(help="Tokens sorted at once, with 50 bytes each.")] = CHUNK_TOKENS,
) -> None:
    """Build a datastore for the drafters retrieval and rasd."""
    from treille.train.datastore import build_from_files

    made = build_from_files(files, out, model, chunk_tokens=chunk_tokens)
    print(f"{out}: {made.documents} documents, {made.tokens} tokens, {made.chunks} chunks")
