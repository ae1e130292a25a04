"""Builds the datastores that the drafters `retrieval` and `rasd` search."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from treille.drafters._datastore import (
    FORMAT,
    SEPARATOR,
    TOKEN,
    Header,
    places_file,
    sorted_places,
    tokens_file,
)
from treille.errors import ParameterError
from treille.language_model import BUNDLED
from treille.models.loader import find_directory
from treille.models.reader import read_json
from treille.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from treille.strategy import Codec

CHUNK_TOKENS = 8_000_000
PROBE = 32
"""Tokens by which another tokenizer is noticed."""


def build_datastore(
    documents: Iterable[Sequence[int]],
    out: Path,
    *,
    vocab_size: int,
    codec: Codec | None = None,
    chunk_tokens: int = CHUNK_TOKENS,
) -> Header:
    """What was written to `out`: a datastore of `documents`, each of them whole in one chunk.

    Args:
        documents: token ids; read one at a time, empty ones are left out.
        out: a directory that does not exist or is empty.
        vocab_size: of the model whose texts are to be drafted.
        codec: its tokenizer, so that a datastore of another one is refused later; None: it cannot be.
        chunk_tokens: tokens that are sorted at once, with about 50 bytes of memory each.

    Raises:
        ParameterError: `out` holds something, there is no document, or an id is not below `vocab_size`.
    """
    if chunk_tokens < 1:
        raise ParameterError(f"chunk_tokens={chunk_tokens}: must be at least 1")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ParameterError(f"out={str(out)!r}: exists and is not empty; give another directory or remove it")
    header = Header(FORMAT, vocab_size, 0, 0, 0, (), None)
    for chunk in _chunks(documents, chunk_tokens):
        out.mkdir(parents=True, exist_ok=True)
        header = _extended(header, chunk, codec)
        _write(out, header.chunks - 1, chunk)
    if not header.chunks:
        raise ParameterError("documents: there is none with a token in it; give texts that are not empty")
    header.write(out)
    return header


def build_from_files(
    files: Iterable[Path], out: Path, model: str | None = None, *, chunk_tokens: int = CHUNK_TOKENS
) -> Header:
    """What was written to `out`: a datastore of texts, for a checkpoint.

    Args:
        files: see `read_documents`.
        out: see `build_datastore`.
        model: directory or Hub name of the checkpoint; None: the bundled one. Only its tokenizer is read.
        chunk_tokens: see `build_datastore`.

    Raises:
        ParameterError: see `read_documents` and `build_datastore`; or the checkpoint has no tokenizer.
        CheckpointError: the checkpoint cannot be found or read.
    """
    directory = find_directory(BUNDLED if model is None else model)
    tokenizer = load_tokenizer(directory)
    if tokenizer is None:
        raise ParameterError(f"model={model!r}: has no tokenizer.json, and texts need one; add it")
    size = read_json(directory / "config.json").get("vocab_size")
    return build_datastore(
        (tokenizer.encode(text, add_special_tokens=False) for text in read_documents(files)),
        out,
        vocab_size=size if isinstance(size, int) else tokenizer.vocab_size,
        codec=tokenizer,
        chunk_tokens=chunk_tokens,
    )


def _chunks(documents: Iterable[Sequence[int]], most: int) -> Iterator[list[Sequence[int]]]:
    """Documents of at least `most` tokens together, fewer at the end."""
    chunk: list[Sequence[int]] = []
    size = 0
    for document in documents:
        if not len(document):
            continue
        chunk.append(document)
        size += len(document)
        if size >= most:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _extended(header: Header, chunk: Sequence[Sequence[int]], codec: Codec | None) -> Header:
    """The header with one more chunk."""
    least, most = min(map(min, chunk)), max(map(max, chunk))
    if least < 0 or most >= header.vocab_size:
        wrong = least if least < 0 else most
        raise ParameterError(f"documents: token id {wrong} is not in 0 … {header.vocab_size - 1}; check vocab_size")
    probe, text = header.probe, header.text
    if not header.chunks:
        probe = tuple(int(token) for token in chunk[0][:PROBE])
        text = None if codec is None else codec.decode(probe)
    tokens = header.tokens + sum(map(len, chunk))
    return Header(FORMAT, header.vocab_size, header.documents + len(chunk), tokens, header.chunks + 1, probe, text)


def _write(out: Path, number: int, chunk: Sequence[Sequence[int]]) -> None:
    tokens = np.concatenate([np.array([*document, SEPARATOR], np.uint32) for document in chunk]).astype(TOKEN)
    np.save(out / tokens_file(number), tokens, allow_pickle=False)
    np.save(out / places_file(number), sorted_places(tokens).astype("<u4"), allow_pickle=False)


def read_documents(files: Iterable[Path]) -> Iterator[str]:
    """Texts of files: each file is one, a `.jsonl` file has one per line, a string or an object with `text`.

    Raises:
        ParameterError: a file cannot be read, is not UTF-8, or has a line of another kind.
    """
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise ParameterError(f"FILES: {file}: cannot be read ({error.strerror}); give a readable file") from error
        except UnicodeDecodeError as error:
            raise ParameterError(f"FILES: {file}: is not UTF-8 text (byte {error.start}); convert it") from error
        if file.suffix != ".jsonl":
            yield text
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield _text_of(line, f"{file}, line {number}")


def _text_of(line: str, where: str) -> str:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ParameterError(f"FILES: {where}: is not JSON ({error}); write one object per line") from error
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise ParameterError(f'FILES: {where}: {line[:60]!r}: write a string or {{"text": …}}')
    return text
