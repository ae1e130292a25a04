"""The tensors of a checkpoint directory: one safetensors file, or several with an index."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from treille.errors import CheckpointError
from treille.models.reader import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


class TensorSource:
    """Reads tensors by name, checks their shapes, and remembers which were read.

    Args:
        directory: The checkpoint.
        dtype: Of the tensors handed out; None for the one they are stored in.
        device: Of the tensors handed out.

    Raises:
        CheckpointError: No weights, a broken file, or a file that the index names and that is not there.
    """

    def __init__(self, directory: Path, dtype: torch.dtype | None, device: torch.device) -> None:
        self.device = device
        self._file_of: dict[str, Path] = {}
        self._open: dict[Path, Any] = {}
        self._read: set[str] = set()
        for file, names in _files(directory).items():
            held = self._names(file)
            for name in held if names is None else names:
                if name not in held:
                    raise CheckpointError(f"{file}: tensor {name} is missing; {INDEX} says that it is in this file")
                self._file_of[name] = file
        self.where = str(directory)
        self.dtype = dtype if dtype is not None else self._stored_dtype()

    def has(self, name: str) -> bool:
        """Whether there is such a tensor."""
        return name in self._file_of

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor in memory of its own.

        Args:
            name: As in the checkpoint.
            shape: What the configuration says that it must be.

        Raises:
            CheckpointError: It is missing, has another shape, or is not stored as a float that can be computed with.
        """
        if name not in self._file_of:
            raise CheckpointError(f"{self.where}: tensor {name} is missing; the configuration needs it, shape {shape}")
        file = self._file_of[name]
        view = self._open[file].get_slice(name)
        if tuple(view.get_shape()) != shape:
            raise CheckpointError(
                f"{file}: tensor {name} has shape {tuple(view.get_shape())}; the configuration says {shape}"
            )
        self._check_dtype(name, view.get_dtype())
        self._read.add(name)
        stored = self._open[file].get_tensor(name)
        # A copy, never a view of the mapped file: the file may be rewritten while the model lives.
        tensor: Tensor = stored.to(device=self.device, dtype=self.dtype, copy=True)
        return tensor

    def refuse_leftovers(self, ignorable: Iterable[str]) -> None:
        """Returns only if every tensor was read or matches a pattern.

        Raises:
            CheckpointError: There are others; the message names file and tensors.
        """
        patterns = [re.compile(pattern) for pattern in ignorable]
        left = [n for n in self._file_of if n not in self._read and not any(p.search(n) for p in patterns)]
        if left:
            shown = ", ".join(sorted(left)[:4]) + (f" and {len(left) - 4} more" if len(left) > 4 else "")
            raise CheckpointError(
                f"{self._file_of[left[0]]}: unexpected tensors {shown}; the configuration has no place for them"
            )

    def _names(self, file: Path) -> set[str]:
        try:
            self._open[file] = safe_open(file, framework="pt")
            return set(self._open[file].keys())
        except FileNotFoundError:
            raise CheckpointError(f"{file}: no such file, although {INDEX} names it; download it") from None
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{file}: not a whole safetensors file ({error}); download or save it again"
            ) from error

    def _stored_dtype(self) -> torch.dtype:
        """The one dtype of all floating-point tensors."""
        found: dict[str, str] = {}
        for name, file in self._file_of.items():
            stored = self._open[file].get_slice(name).get_dtype()
            if stored in FLOATS:
                found.setdefault(stored, name)
        if len(found) != 1:
            raise CheckpointError(f"{self.where}: tensors are stored as {found or 'no float'}; say which dtype to load")
        return FLOATS[next(iter(found))]

    def _check_dtype(self, name: str, stored: str) -> None:
        if stored not in FLOATS:
            raise CheckpointError(
                f"{self._file_of[name]}: tensor {name} is stored as {stored}; supported: {', '.join(FLOATS)}. "
                "Quantized checkpoints have to be converted"
            )


def _files(directory: Path) -> dict[Path, list[str] | None]:
    """The files with weights, and for each the tensors that the index says it holds (None: all it holds)."""
    index = directory / INDEX
    if index.exists():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
            raise CheckpointError(f"{index}: weight_map must map tensor names to file names")
        files: dict[Path, list[str] | None] = {}
        for name, file in weight_map.items():
            if Path(file).name != file:
                raise CheckpointError(f"{index}: weight_map: {name}: {file!r} must be a file of the same directory")
            held = files.setdefault(directory / file, [])
            assert held is not None
            held.append(name)
        return files
    if (directory / SINGLE).exists():
        return {directory / SINGLE: None}
    pickles = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in directory.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"{directory / pickles[0]}: pickled weights are not read, as they can run code; convert them once: "
            "AutoModelForCausalLM.from_pretrained(directory).save_pretrained(new_directory)"
        )
    raise CheckpointError(f"{directory}: no weights; neither {SINGLE} nor {INDEX} is there")
