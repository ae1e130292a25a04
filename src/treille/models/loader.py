"""Loads a checkpoint: a local directory, or a name on the Hugging Face Hub."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from treille.attention.merged import attend as merged_attend
from treille.errors import CheckpointError, ParameterError
from treille.models.adapter import TransformersAdapter
from treille.models.build import build_weights
from treille.models.decoder import Decoder
from treille.models.families.registry import find_family
from treille.models.ops import Attend, TorchOps
from treille.models.reader import ConfigReader, read_json
from treille.models.tensors import FLOATS, INDEX, SINGLE, TensorSource
from treille.models.tokenizer import Tokenizer, load_tokenizer

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_HUB_FILES = ["*.json", "*.jinja", SINGLE, "model-*.safetensors", INDEX]


@dataclass(frozen=True, slots=True)
class LoadedCheckpoint:
    """Everything that a checkpoint directory holds.

    Attributes:
        decoder: The model.
        tokenizer: None where there is no ``tokenizer.json``; the model then works with token ids.
        chat_template: Jinja source, or None.
        generation_config: ``generation_config.json``, empty where there is none.
        config: ``config.json``.
        name: What the checkpoint was asked for by.
        eos_token_ids: Tokens that end a text, from the generation configuration, else from the configuration.
    """

    decoder: Decoder | TransformersAdapter
    tokenizer: Tokenizer | None
    chat_template: str | None
    generation_config: dict[str, Any]
    config: dict[str, Any]
    name: str
    eos_token_ids: tuple[int, ...]


def load_checkpoint(
    source: str | Path,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    *,
    context_length: int | None = None,
    attend: Attend = merged_attend,
) -> LoadedCheckpoint:
    """A model with its tokenizer and settings.

    Args:
        source: A directory, or a name on the Hub such as ``HuggingFaceTB/SmolLM2-135M``.
        dtype: float32, bfloat16 or float16; None for what the checkpoint says.
        device: Where the weights go.
        context_length: Longest sequence in tokens; see `DecoderConfig.with_context`.
        attend: Attention function of the decoder's operations.

    Raises:
        CheckpointError: The checkpoint cannot be found or read, is not supported, or contradicts itself; the message
            names file and key.
        ParameterError: The dtype or context length cannot be honoured.
    """
    if dtype is not None and dtype not in FLOATS.values():
        raise ParameterError(f"dtype = {dtype}: not supported; choose torch.float32, torch.bfloat16 or torch.float16")
    directory = find_directory(source)
    config = read_json(directory / "config.json")
    reader = ConfigReader(config, str(directory / "config.json"))
    family = find_family(reader)
    # The layers' and positions' tensors are as many as the file says, whatever context is asked for.
    described = family.read(reader)
    reader.refuse_unread()
    limited = described.with_context(context_length)
    tensors = TensorSource(directory, dtype or _declared_dtype(reader), torch.device(device))
    decoder = Decoder(limited, build_weights(described, family.layout, tensors), TorchOps(attend))
    generation = directory / "generation_config.json"
    generation_config = read_json(generation) if generation.exists() else {}
    tokenizer = load_tokenizer(directory)
    return LoadedCheckpoint(
        decoder=decoder,
        tokenizer=tokenizer,
        chat_template=None if tokenizer is None else tokenizer.chat_template,
        generation_config=generation_config,
        config=config,
        name=str(source),
        eos_token_ids=_eos_token_ids(generation_config, config),
    )


def adapt_model(model: Any, tokenizer: str | Path | None = None, *, attend: Attend = merged_attend) -> LoadedCheckpoint:
    """A causal language model of `transformers` as a checkpoint, run unchanged through `TransformersAdapter`.

    Args:
        model: Any model whose layers use the library's attention interface; its own attention is replaced.
        tokenizer: A directory with ``tokenizer.json``; None to work with token ids.
        attend: Attention function.

    Raises:
        ParameterError: The model does not support this, with the reason.
        CheckpointError: The tokenizer cannot be read.
    """
    generation_config = model.generation_config.to_dict() if getattr(model, "generation_config", None) else {}
    config = model.config.to_dict()
    found = None if tokenizer is None else load_tokenizer(find_directory(tokenizer))
    return LoadedCheckpoint(
        decoder=TransformersAdapter(model, attend),
        tokenizer=found,
        chat_template=None if found is None else found.chat_template,
        generation_config=generation_config,
        config=config,
        name=type(model).__name__,
        eos_token_ids=_eos_token_ids(generation_config, config),
    )


def find_directory(source: str | Path) -> Path:
    """The directory of a checkpoint, downloaded from the Hub if it is a name there.

    Raises:
        CheckpointError: There is no such directory, and no such name on the Hub or no way to it.
    """
    directory = Path(source).expanduser()
    if directory.is_dir():
        return directory
    if directory.exists():
        raise CheckpointError(f"{source}: is a file; a checkpoint is a directory with config.json and safetensors")
    if isinstance(source, Path) or not _HUB_NAME.fullmatch(source):
        raise CheckpointError(f"{source}: no such directory, and not a name on the Hub (owner/name)")
    return _download(source)


def _download(name: str) -> Path:
    """The snapshot of a name on the Hub; without a connection, the one in the local cache."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES, ignore_patterns=["*/*"]))
    except Exception as error:  # the client's errors come from three packages; each means that there is no checkpoint
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"{name}: no such directory, and not available from the Hub "
            f"({type(error).__name__}: {reason[0] if reason else 'no reason given'}); give a local directory, "
            "or check name, connection and access"
        ) from error


def _declared_dtype(reader: ConfigReader) -> torch.dtype | None:
    """The dtype that the configuration names, under its new or its old key."""
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    for key in ("dtype", "torch_dtype"):
        if reader.has(key):
            return reader.choice(key, names)
    return None


def _eos_token_ids(generation_config: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[int, ...]:
    found = generation_config.get("eos_token_id")
    if found is None:
        found = config.get("eos_token_id")
    ids = found if isinstance(found, list) else [] if found is None else [found]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in ids):
        raise CheckpointError(f"eos_token_id = {found!r}: must be a token id or a list of them")
    return tuple(ids)
