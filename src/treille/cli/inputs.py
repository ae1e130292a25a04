"""What the command line was given: prompts and options, read and checked before anything is loaded."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from treille.errors import ParameterError
from treille.strategy import StrategyInfo, registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def read_prompts(prompt: str | None, file: Path | None, *, chat: bool) -> list[Any]:
    """The prompts that the arguments name, at least one."""
    if (prompt is None) == (file is None):
        both = (
            "PROMPT and --file: give one of them" if file else "PROMPT: is missing; give a text, - for stdin, or --file"
        )
        raise ParameterError(both)
    if file is not None:
        prompts = _file_prompts(file)
    else:
        prompts = [_read("-", sys.stdin.buffer.read).removesuffix("\n") if prompt == "-" else prompt]
    if chat:
        return [[{"role": "user", "content": p}] if isinstance(p, str) else p for p in prompts]
    return prompts


def _file_prompts(file: Path) -> list[Any]:
    if file.suffix not in {".txt", ".jsonl"}:
        raise ParameterError(f"--file={file}: the name must end in .txt (a prompt per line) or .jsonl")
    lines = [(i, line) for i, line in enumerate(_read(str(file), file.read_bytes).splitlines(), 1) if line.strip()]
    if not lines:
        raise ParameterError(f"--file={file}: holds no prompt; write one per line")
    return [line if file.suffix == ".txt" else _json_prompt(line, f"--file={file}, line {i}") for i, line in lines]


def _json_prompt(line: str, where: str) -> Any:
    """A prompt from a line of JSON: a string, or an object with `prompt` (text or ids) or `messages`."""
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ParameterError(f"{where}: is not JSON ({error}); write one object per line") from error
    if isinstance(value, str):
        return value
    if not isinstance(value, dict) or len(value) != 1 or not value.keys() <= {"prompt", "messages"}:
        raise ParameterError(f'{where}: {line[:60]!r}: write a string, {{"prompt": …}} or {{"messages": […]}}')
    ((key, content),) = value.items()
    kind = str if key == "prompt" and isinstance(content, str) else int if key == "prompt" else dict
    if kind is not str and not (isinstance(content, list) and content and all(isinstance(x, kind) for x in content)):
        wanted = "text or a list of token ids" if key == "prompt" else "a list of objects with role and content"
        raise ParameterError(f"{where}: {key}={content!r}: {wanted} is wanted")
    return content


def _read(name: str, read: Any, flag: str = "--file") -> str:
    """Text from a file or stdin."""
    try:
        return str(read(), "utf-8")
    except OSError as error:
        raise ParameterError(f"{flag}={name}: cannot be read ({error.strerror}); give a readable file") from error
    except UnicodeDecodeError as error:
        raise ParameterError(f"{name}: is not UTF-8 text (byte {error.start}); convert it") from error


def read_constraint(
    json_schema: Path | None, regex: str | None, grammar: Path | None, choices: Sequence[str] | None
) -> Any:
    """The source of the constraint that one of the flags describes, None if none is given."""
    given = {"--json-schema": json_schema, "--regex": regex, "--grammar": grammar, "--choices": choices or None}
    named = [flag for flag, value in given.items() if value is not None]
    if len(named) > 1:
        raise ParameterError(f"{' and '.join(named)}: a text has one constraint; give one of them")
    if not named:
        return None
    from treille import constraints  # llguidance is imported only when it is needed

    if json_schema is not None:
        return constraints.json_schema(json_schema)
    if regex is not None:
        return constraints.regex(regex)
    if grammar is not None:
        return constraints.grammar(_read(str(grammar), grammar.read_bytes, "--grammar"))
    return constraints.choices([text for value in choices or () for text in _listed(value)])


def _listed(value: str) -> list[str]:
    """The texts of a JSON list, or between commas."""
    if not value.startswith("["):
        return value.split(",")
    try:
        texts = json.loads(value)
    except ValueError as error:
        raise ParameterError(f'--choices={value!r}: is not JSON ({error}); write a,b or ["a", "b"]') from error
    if not all(isinstance(text, str) for text in texts):
        raise ParameterError(f"--choices={value!r}: every choice must be a text")
    return list(texts)


# --- options ----------------------------------------------------------------------------------------------------------

_KINDS = {
    "max_new_tokens": "int",
    "seed": "int",
    "num_return_sequences": "int",
    "preset": "str",
    "stop_strings": "list",
    "eos_token_id": "int or list",
    "processor_order": "list",
}
_WORDS = {"None": None, "null": None, "True": True, "true": True, "False": False, "false": False}


def read_options(strategy: str | None, given: Sequence[str], flags: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The strategy's name and all options, checked as far as this can be done without a model."""
    info = None if strategy is None else registry[strategy]  # an unknown name is told before torch is imported
    from treille.language_model import default_strategy
    from treille.options import split
    from treille.strategy import configured

    options = dict(flags)
    for text in given:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not name or not equals:
            raise ParameterError(f"-o {text!r}: write it as name=value, for example -o width=4")
        if name in options:
            raise ParameterError(f"-o {text!r}: {name} is given twice; give it once")
        options[name] = _typed(name, value, _kind(name, info))
    chosen = info or registry[default_strategy(options)]
    split(options, chosen)
    configured(chosen, options)
    return chosen.name, options


def _kind(name: str, info: StrategyInfo | None) -> str:
    """What type of value a parameter takes, in words; empty if that is not known."""
    from treille.sampling.parameters import PARAMETERS

    if info is not None and name in info.parameters:
        parameter = info.parameters[name]
        if parameter.annotation is parameter.empty:
            return type(parameter.default).__name__
        return str(getattr(parameter.annotation, "__name__", parameter.annotation))
    return PARAMETERS[name].type if name in PARAMETERS else _KINDS.get(name, "")


def _typed(name: str, value: str, kind: str) -> Any:
    """The value that a text on the command line stands for; what fits nothing is left to the parameter's check."""
    if any(word in kind for word in ("Callable", "Scorer", "function")):
        raise ParameterError(f"-o {name}={value}: {name} is a Python function; use treille.load().generate for it")
    if kind == "str" or (kind.startswith("str") and value not in _WORDS):
        return value
    if value in _WORDS:
        return _WORDS[value]
    try:
        if kind in {"int", "float"}:
            return int(value) if kind == "int" else float(value)
        parsed = json.loads(value)
    except ValueError as error:
        if value[:1] in "[{":
            raise ParameterError(f"-o {name}={value}: is not JSON ({error})") from error
        return value
    return _with_ids(parsed) if kind.startswith("dict[int") and isinstance(parsed, dict) else parsed


def _with_ids(mapping: Mapping[str, Any]) -> dict[Any, Any]:
    """JSON's keys are texts; those of a mapping from token ids are numbers."""
    return {int(key) if key.lstrip("-").isdigit() else key: value for key, value in mapping.items()}
