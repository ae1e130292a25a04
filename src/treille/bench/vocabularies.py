"""Vocabularies for the benchmark of constraints: a large byte-level BPE, and a checkpoint with a tokenizer."""

from __future__ import annotations

import json
import shutil
import sysconfig
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from treille.constraints import Vocabulary
from treille.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_FILES = 12_000


def byte_level(size: int, work: Path) -> Vocabulary:
    """A byte-level BPE of up to `size` tokens, trained on this Python's own libraries, and kept in `work`.

    Fewer tokens if the text has no more pairs that occur twice.
    """
    path = work / f"byte-level-{size}.json"
    if not path.exists():
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=size - 1, min_frequency=2, initial_alphabet=alphabet, show_progress=False
        )
        backend.train_from_iterator(_texts(), trainer)
        backend.add_special_tokens(["<|end|>"])
        work.mkdir(parents=True, exist_ok=True)
        backend.save(str(path))
    folder = path.with_suffix("")
    folder.mkdir(exist_ok=True)
    shutil.copy(path, folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}), encoding="utf-8")
    tokenizer = load_tokenizer(folder)
    assert tokenizer is not None
    end = tokenizer.backend.token_to_id("<|end|>")
    assert end is not None
    return Vocabulary.of(tokenizer, [end])


def _texts() -> Iterator[str]:
    """Python sources: the standard library first, then what is installed beside this package."""
    folders = [Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib")]
    files = (path for folder in folders for path in sorted(folder.rglob("*.py")))
    for path in islice(files, MOST_FILES):
        yield path.read_text(encoding="utf-8", errors="ignore")


def spoken(directory: Path, tokenizer: Path) -> Path:
    """A checkpoint beside `directory` with the same weights and the tokenizer of another checkpoint."""
    beside = directory.with_name(f"{directory.name}-spoken")
    beside.mkdir(exist_ok=True)
    for path in directory.iterdir():
        if not (beside / path.name).exists():
            (beside / path.name).symlink_to(path.resolve())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, beside / name)
    return beside
