"""Text to tokens and back, one token at a time, and chat templates as `transformers` renders them."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from treille.errors import CheckpointError, ParameterError
from treille.models.tokenizer import TextStream, Tokenizer, load_tokenizer

TEXTS = ["Hello, world", "naïve café — Ωmega", "日本語 text 🙂🙃", "  two  spaces\n\ttab", "x", "👩‍👩‍👧 family", ""]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}\n    {% continue %}{% endif %}"
    "<{{ m['role'] }}>{% generation %}{{ m['content'] | trim }}{% endgeneration %}{{ eos_token }}\n{% endfor %}"
    "{% if tools is none %}{{ {'a': 'é<'} | tojson }}{% endif %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
MESSAGES = [
    {"role": "system", "content": "ignored"},
    {"role": "user", "content": " hi "},
    {"role": "assistant", "content": "hö"},
]


def byte_level() -> Backend:
    """A byte-level BPE tokenizer without merges but one, with two special tokens and one added word."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {character: index for index, character in enumerate(alphabet)}
    vocab["he"] = len(vocab)
    backend = Backend(models.BPE(vocab, [("h", "e")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>"])
    backend.add_tokens(["ünï"])
    return backend


def byte_fallback() -> Backend:
    """A tokenizer in the way of Llama 2: spaces as ▁, bytes for what the vocabulary lacks, first space stripped."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghilmnoprstuwxy", "▁t"]
    merges = [("▁", "t")]
    backend = Backend(models.BPE({p: i for i, p in enumerate(pieces)}, merges, unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<s>", "</s>"])
    return backend


KINDS: dict[str, Callable[[], Backend]] = {"byte-level": byte_level, "byte-fallback": byte_fallback}


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """One of the two usual kinds of tokenizer."""
    return Tokenizer(KINDS[request.param](), {"bos_token": "<s>", "eos_token": "</s>"}, TEMPLATE)


@pytest.mark.parametrize("text", TEXTS)
def test_stream_gives_the_text(tokenizer: Tokenizer, text: str) -> None:
    """The pieces of a stream are the decoded text, no piece ends within a character, special tokens have no text."""
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in [*ids, tokenizer.token_id("eos_token") or 0]]
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
    assert "".join(pieces) + stream.flush() == text


def test_stream_of_random_tokens_is_the_decoded_text() -> None:
    """For a byte-level vocabulary this holds for any tokens, also where they are not UTF-8."""
    tokenizer, rng = Tokenizer(byte_level()), random.Random(0)
    for _ in range(200):
        ids = [rng.randrange(tokenizer.vocab_size) for _ in range(12)]
        stream = TextStream(tokenizer, skip_special_tokens=False)
        assert "".join(map(stream.push, ids)) + stream.flush() == tokenizer.decode(ids, skip_special_tokens=False)


def test_stream_does_not_wait_for_ever() -> None:
    """Bytes that never become a character are given out after a bounded number of tokens."""
    tokenizer = Tokenizer(byte_fallback())
    stream, token = TextStream(tokenizer, patience=8), tokenizer.backend.token_to_id("<0xF0>")
    pieces = [stream.push(token) for _ in range(40)]
    assert sum(map(bool, pieces)) == 4
    assert pieces[8]


def test_stream_work_does_not_grow() -> None:
    """With each token only tokens since the last character are decoded, and those of the piece before."""

    class Counting(Tokenizer):
        longest = 0

        def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
            self.longest = max(self.longest, len(ids))
            return super().decode(ids, skip_special_tokens)

    tokenizer = Counting(byte_fallback())
    stream = TextStream(tokenizer)
    for token in tokenizer.encode("the tree 🙂 " * 50):
        stream.push(token)
    assert tokenizer.longest <= 8


def test_token_bytes(tokenizer: Tokenizer) -> None:
    """The bytes of a text's tokens are the text's bytes, but for the space some tokenizers put before it."""
    for text in TEXTS:
        joined = b"".join(tokenizer.token_bytes(token) for token in tokenizer.encode(text))
        put_before = b" " if text and tokenizer.decoder_kinds != ("ByteLevel",) else b""
        assert joined == put_before + text.encode()
    with pytest.raises(ParameterError, match="token 100000"):
        tokenizer.token_bytes(100_000)


def test_token_bytes_of_an_unknown_decoder() -> None:
    """A decoder whose bytes are not known is refused by name."""
    backend = Backend(models.WordLevel({"a": 0}, unk_token="a"))
    backend.decoder = decoders.WordPiece()
    with pytest.raises(ParameterError, match="WordPiece"):
        Tokenizer(backend).token_bytes(0)


def _save(directory: Path, config: dict[str, Any]) -> None:
    backend = byte_level()
    backend.enable_truncation(4)
    backend.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def test_chat_equals_transformers(tmp_path: Path) -> None:
    """A chat template with all the extras gives the same prompt as in `transformers`."""
    config = {"chat_template": TEMPLATE, "bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}}
    _save(tmp_path, config)
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_level(), bos_token="<s>", eos_token=AddedToken("</s>"), chat_template=TEMPLATE
    )
    ours = load_tokenizer(tmp_path)
    assert ours is not None
    for prompt in (True, False):
        expected = theirs.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=prompt)
        assert ours.chat(MESSAGES, add_generation_prompt=prompt) == expected
    assert len(ours.encode("longer than four")) > 4


def test_chat_template_places(tmp_path: Path) -> None:
    """A template file comes first, then the one named default; none at all is refused when a chat is asked for."""
    named = [
        {"name": "tool", "template": "t"},
        {"name": "default", "template": "default {{ strftime_now('%Y')|length }}"},
    ]
    _save(tmp_path, {"chat_template": named})
    assert load_tokenizer(tmp_path).chat(MESSAGES) == "default 4"  # type: ignore[union-attr]
    (tmp_path / "chat_template.jinja").write_text("file")
    assert load_tokenizer(tmp_path).chat(MESSAGES) == "file"  # type: ignore[union-attr]
    (tmp_path / "chat_template.jinja").unlink()
    _save(tmp_path, {"chat_template": named[:1]})
    with pytest.raises(CheckpointError, match="named default"):
        load_tokenizer(tmp_path)
    _save(tmp_path, {})
    with pytest.raises(ParameterError, match="no chat template"):
        load_tokenizer(tmp_path).chat(MESSAGES)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('roles must alternate') }}", "{{ messages.__class__.__mro__ }}", "{% if %}"]
)
def test_templates_that_refuse_or_misbehave(template: str) -> None:
    """A template's own refusal, an attempt to leave the sandbox, and a syntax error are errors of the parameter."""
    with pytest.raises(ParameterError, match="chat template refuses"):
        Tokenizer(byte_level(), {}, template).chat(MESSAGES)


def test_special_tokens_and_broken_files(tmp_path: Path) -> None:
    """Special tokens come from either file; a broken tokenizer is named; without one there is none."""
    assert load_tokenizer(tmp_path) is None
    _save(tmp_path, {"eos_token": "</s>"})
    (tmp_path / "special_tokens_map.json").write_text('{"bos_token": {"content": "<s>"}}')
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer is not None
    assert (tokenizer.token_id("bos_token"), tokenizer.token_id("eos_token")) == (257, 258)
    assert tokenizer.token_id("pad_token") is None
    assert tokenizer.special_ids == {257, 258}
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
