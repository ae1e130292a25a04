"""Text to tokens and back, chat templates, and text that arrives token by token."""

import codecs
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import tokenizers
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from treille.errors import CheckpointError, ParameterError
from treille.models.reader import read_json

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


def _byte_alphabet() -> dict[str, int]:
    """The printable character that stands for each byte in byte-level vocabularies (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    table = {chr(byte): byte for byte in printable}
    table.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return table


_BYTES = _byte_alphabet()


class Tokenizer:
    """A ``tokenizer.json`` with its special tokens and chat template.

    Args:
        backend: The tokenizer proper.
        special_tokens: Texts by role, such as ``bos_token``.
        chat_template: Jinja source, or None.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        special_tokens: Mapping[str, str] | None = None,
        chat_template: str | None = None,
    ) -> None:
        self.backend = backend
        self.special_tokens = dict(special_tokens or {})
        self.chat_template = chat_template
        added = backend.get_added_tokens_decoder()
        self.special_ids = frozenset(token for token, entry in added.items() if entry.special)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included; the model's vocabulary may be padded beyond it."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    @cached_property
    def decoder_kinds(self) -> tuple[str, ...]:
        """The steps that turn tokens into text, in order, as ``tokenizer.json`` names them."""
        decoder = json.loads(self.backend.to_str()).get("decoder") or {}
        steps = decoder.get("decoders", [decoder]) if decoder else []
        return tuple(step["type"] for step in steps)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids; with the tokens that the tokenizer puts around every text, unless asked not to."""
        return list(self.backend.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids; bytes that are not UTF-8 become U+FFFD."""
        return str(self.backend.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def token_id(self, role: str) -> int | None:
        """The id of a special token by role, such as ``eos_token``; None where the tokenizer has none."""
        text = self.special_tokens.get(role)
        return None if text is None else self.backend.token_to_id(text)

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for inside a decoded text; the tokenizer may strip a space at its beginning.

        Raises:
            ParameterError: There is no such token, or the tokenizer's kind of decoder is not known.
        """
        text = self.backend.id_to_token(token)
        if text is None:
            raise ParameterError(f"token {token}: the tokenizer has {self.vocab_size} tokens")
        kinds = self.decoder_kinds
        if "ByteLevel" in kinds:
            return self._level_bytes(text)
        if "ByteFallback" in kinds and len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            return bytes([int(text[3:5], 16)])
        if "Metaspace" in kinds or "Replace" in kinds:
            return text.replace("▁", " ").encode()
        raise ParameterError(
            f"token_bytes: tokenizer.json has decoder {kinds}; known: ByteLevel, ByteFallback, Metaspace"
        )

    def chat(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> str:
        """The prompt that the chat template makes of messages; encode it without special tokens.

        Args:
            messages: Objects with ``role`` and ``content``.
            add_generation_prompt: Whether the text ends where the assistant's answer begins.

        Raises:
            ParameterError: There is no chat template, or the template refuses the messages.
        """
        if self.chat_template is None:
            raise ParameterError("chat messages: the checkpoint has no chat template; give the prompt as text")
        try:
            return self._template.render(
                messages=[dict(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self.special_tokens,
            )
        except jinja2.TemplateError as error:
            raise ParameterError(f"chat messages: the checkpoint's chat template refuses them ({error})") from error

    @cached_property
    def _template(self) -> jinja2.Template:
        assert self.chat_template is not None
        return _environment().from_string(self.chat_template)

    @staticmethod
    def _level_bytes(text: str) -> bytes:
        # As the byte-level decoder does: a token with a character outside the table stands for itself.
        mapped = [_BYTES.get(character) for character in text]
        known = [byte for byte in mapped if byte is not None]
        return bytes(known) if len(known) == len(mapped) else text.encode()


class TextStream:
    """Text from tokens that arrive one by one: what was returned is final, and O(1) work per token.

    For byte-level vocabularies the pieces together are exactly the decoded text. For the others a token's text can
    depend on its neighbours: the last tokens are decoded again with each new one, and text that ends in an incomplete
    character waits, for at most `patience` tokens (which valid UTF-8 never needs).

    Args:
        tokenizer: Of the tokens.
        skip_special_tokens: Whether special tokens have no text.
        patience: Tokens after which an incomplete character is given up.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool = True, patience: int = 8) -> None:
        self._tokenizer = tokenizer
        self._skip = tokenizer.special_ids if skip_special_tokens else frozenset()
        self._patience = patience
        self._bytes = (
            codecs.getincrementaldecoder("utf-8")("replace") if tokenizer.decoder_kinds == ("ByteLevel",) else None
        )
        self._context: list[int] = []
        self._pending: list[int] = []

    def push(self, token: int) -> str:
        """The text that has become final with this token; only complete characters, possibly none.

        Raises:
            ParameterError: There is no such token.
        """
        if token in self._skip:
            return ""
        if self._bytes is not None:
            return self._bytes.decode(self._tokenizer.token_bytes(token))
        self._pending.append(token)
        text = self._decode_pending()
        if text.endswith(_REPLACEMENT) and len(self._pending) <= self._patience:
            return ""
        self._context, self._pending = self._pending, []
        return text

    def flush(self) -> str:
        """What is still held back, incomplete characters as U+FFFD; the stream is then at its end."""
        if self._bytes is not None:
            return self._bytes.decode(b"", final=True)
        text = self._decode_pending()
        self._context, self._pending = self._pending, []
        return text

    def _decode_pending(self) -> str:
        """The text of the pending tokens, after the tokens before them."""
        before = self._tokenizer.decode(self._context, skip_special_tokens=False)
        return self._tokenizer.decode(self._context + self._pending, skip_special_tokens=False)[len(before) :]


def load_tokenizer(directory: Path) -> Tokenizer | None:
    """The tokenizer of a checkpoint, or None where it has no ``tokenizer.json``.

    Raises:
        CheckpointError: One of its files cannot be read.
    """
    file = directory / "tokenizer.json"
    if not file.exists():
        return None
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises Exception itself
        raise CheckpointError(f"{file}: not readable as a tokenizer ({error}); download or save it again") from error
    # The file may ask for padding and truncation; prompts are encoded one by one and whole.
    backend.no_padding()
    backend.no_truncation()
    config_file, map_file = directory / "tokenizer_config.json", directory / "special_tokens_map.json"
    config = read_json(config_file) if config_file.exists() else {}
    special = read_json(map_file) if map_file.exists() else {}
    texts = {name: _token_text({**special, **config}.get(name)) for name in _SPECIAL_NAMES}
    return Tokenizer(
        backend,
        {name: text for name, text in texts.items() if text is not None},
        _read_template(directory, config, config_file),
    )


def _token_text(value: object) -> str | None:
    """The text of a special token, which is stored as text or as an object with the text in ``content``."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _read_template(directory: Path, config: Mapping[str, Any], config_file: Path) -> str | None:
    """``chat_template.jinja``, else ``chat_template`` of ``tokenizer_config.json``: one, or the one named default."""
    file = directory / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        if "default" not in named:
            raise CheckpointError(
                f"{config_file}: chat_template holds {sorted(map(str, named))}; none is named default"
            )
        template = named["default"]
    if template is not None and not isinstance(template, str):
        raise CheckpointError(f"{config_file}: chat_template must be text or a list of named texts")
    return template


class _Generation(Extension):
    """``{% generation %}`` marks the assistant's text for training; here its body is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012  # jinja's own declaration

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """The statements between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    """The environment that chat templates are written for; templates are untrusted, so it is sandboxed."""

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def strftime_now(pattern: str) -> str:
        return datetime.now().astimezone().strftime(pattern)

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment
