"""Masks by llguidance: one recognizer for regular expressions, grammars and JSON Schema, with states that are values.

llguidance's matcher is mutable. A `_Line` is one matcher with the states of one line of descent: advancing the newest
of them moves the matcher, advancing an older one forks a copy (some 10 µs), and states that nobody holds any more are
rolled back. Asking an older state moves the matcher there by rollback, so neither forks nor questions replay a text.

Recognizer: guidance-ai/llguidance (derivatives of regular expressions under an Earley parser). Deviation: with
``tokenization="any"`` its option ``no_forcing`` is set, without which its mask has one bit wherever bytes are forced.
"""

import hashlib
import json
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from ctypes import addressof, c_char
from dataclasses import dataclass, field
from itertools import takewhile
from types import MappingProxyType
from typing import TypeAlias, get_args

import llguidance
import numpy as np
from numpy.typing import NDArray

from treille.constraints.base import Exact, Tokenization
from treille.constraints.bounded import check_bounded
from treille.constraints.closing import Step, shortest_closing, spell_steps
from treille.constraints.messages import first_line, shorten
from treille.constraints.vocabulary import Vocabulary
from treille.errors import DecodingError, ParameterError

_NO_PARTS: Mapping[str, str] = MappingProxyType({})
_DEAD_END = "NoExtensionBias"
"""How llguidance's message begins where no token of the vocabulary may follow."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar in llguidance's Lark dialect.

    Attributes:
        text: rules, with a rule ``start``.
        parts: further grammars by name, mentioned as ``@name``.
        hints: texts, or names of special tokens, that every completion may need.
    """

    text: str
    parts: Mapping[str, str] = field(default_factory=lambda: _NO_PARTS)
    hints: tuple[str, ...] = ()

    def part(self) -> tuple[str, Mapping[str, str]]:
        """How another grammar mentions this one, and the parts that it needs for that.

        Names follow from contents, so equal names mean equal grammars.
        """
        name = "g" + hashlib.sha256(self.text.encode()).hexdigest()[:16]
        return f"@{name}", {**self.parts, name: self.text}

    def serialize(self, tokenization: Tokenization) -> str:
        """What llguidance reads; its own forcing of tokens is on for canonical tokenization only."""
        options = json.dumps({"no_forcing": tokenization == "any"})
        parts = [{"name": name, "lark_grammar": text} for name, text in self.parts.items()]
        return json.dumps({"grammars": [{"lark_grammar": f"%llguidance {options}\n{self.text}"}, *parts]})


Guide: TypeAlias = Callable[[bytes, "MatcherProbe"], Sequence[Step] | None]
"""A completion of a text, as its recognizer takes it; None where none is known."""


class State:
    """A text that a constraint allows so far. A value: nothing that is done with it changes it.

    Attributes:
        before: the same text before its end-of-sequence token; None where it has not ended.
    """

    __slots__ = ("__weakref__", "before", "length", "line")

    def __init__(self, line: "_Line", length: int, before: "State | None" = None) -> None:
        self.line = line
        self.length = length
        self.before = before


class _Line:
    """A matcher, and weak references to the states of one line of descent.

    Attributes:
        base: length of the first of `states`.
        tokens: all tokens from the beginning of the text to the newest state.
        at: how many of the tokens the matcher has consumed.
    """

    __slots__ = ("at", "base", "lock", "matcher", "states", "tokens")

    def __init__(self, matcher: llguidance.LLMatcher, tokens: list[int]) -> None:
        self.lock = threading.Lock()
        self.matcher = matcher
        self.base = self.at = len(tokens)
        self.tokens = tokens
        self.states: list[weakref.ref[State]] = []

    def add(self) -> State:
        """The state at the end of `tokens`."""
        state = State(self, len(self.tokens))
        self.states.append(weakref.ref(state))
        return state

    def grow(self, token: int) -> State:
        """The state one token further, which the matcher has just consumed."""
        self.tokens.append(token)
        self.at += 1
        if not self.states:
            self.base = self.at
        return self.add()

    def trim(self) -> None:
        """Forget the newest states that nobody holds."""
        while self.states[-1]() is None:
            self.states.pop()
            self.tokens.pop()
        if self.at > len(self.tokens):
            self._roll_back(len(self.tokens))

    def child(self, state: State, token: int) -> State | None:
        """The state that follows `state` on this line, if it holds `token` and somebody holds it."""
        if self.tokens[state.length] != token:
            return None
        return self.states[state.length + 1 - self.base]()

    def seek(self, length: int) -> llguidance.LLMatcher:
        """The matcher after the first `length` tokens."""
        if self.at > length:
            self._roll_back(length)
        elif self.at < length:
            # Not `try_consume_tokens`, which checks every token before it takes it: three times as long.
            consumed = self.matcher.consume_tokens(self.tokens[self.at : length])
            assert consumed, f"a token that was accepted once is refused now: {self.matcher.get_error()}"
            self.at = length
        return self.matcher

    def fork(self, length: int) -> "_Line":
        """A line that begins with the first `length` tokens; where this one is further, it stays there."""
        ahead = self.at - length
        matcher = self.matcher.deep_copy() if ahead > 0 else self.seek(length).deep_copy()
        if ahead > 0:
            rolled_back = matcher.rollback(ahead)
            assert rolled_back, matcher.get_error()
        return _Line(matcher, self.tokens[:length])

    def replace(self, matcher: llguidance.LLMatcher) -> None:
        """Go on with a matcher of the empty text, because an error has ended the present one."""
        self.matcher, self.at = matcher, 0

    def _roll_back(self, length: int) -> None:
        rolled_back = self.matcher.rollback(self.at - length)
        assert rolled_back, self.matcher.get_error()
        self.at = length


class GuidanceConstraint(Exact):
    """A language that llguidance recognizes, for one vocabulary.

    Attributes:
        guide: What may know a completion of a text without a search; whoever compiles the source may set it.

    Args:
        vocabulary: Its tokens.
        tokenization: Which spellings are allowed.
        name: What messages call the source.
        root: The matcher of the empty text, which is only copied.
        hints: What a completion may need; see `shortest_closing`.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        tokenization: Tokenization,
        name: str,
        root: llguidance.LLMatcher,
        hints: Sequence[Step] = (),
    ) -> None:
        self.vocabulary = vocabulary
        self.tokenization = tokenization
        self.name = name
        self._root = root
        self._hints = tuple(hints)
        self.guide: Guide | None = None
        self._canonical = tokenization == "canonical"
        self._size = 4 * vocabulary.words  # bytes of a mask

    def start(self) -> State:
        """The state of the empty text."""
        return _Line(self._root.deep_copy(), []).add()

    def advance(self, state: State, token: int) -> State | None:
        """The state after ``token``, or None where it is not allowed.

        Raises:
            DecodingError: llguidance reached one of its limits.
        """
        if state.before is not None or not 0 <= token < self.vocabulary.width:
            return None
        if token in self.vocabulary.eos:
            return State(state.line, state.length, before=state) if self.is_final(state) else None
        line = state.line
        with line.lock:
            line.trim()
            if state.length < len(line.tokens):  # somebody holds what followed, so the line must stay as it is
                if known := line.child(state, token):
                    return known
                line = line.fork(state.length)
            matcher = line.matcher if line.at == state.length else line.seek(state.length)
            if self._canonical and (forced := matcher.compute_ff_tokens()) and forced[0] != token:
                return None
            if not matcher.try_consume_tokens([token]):
                self._check(line, state)
                return None
            return line.grow(token)

    def masks(self, states: Sequence[State], out: NDArray[np.int32]) -> None:
        """One mask per state in `out`, int32 ``[N, ceil(W / 32)]``, C-contiguous.

        Raises:
            DecodingError: llguidance reached one of its limits.
        """
        size = self._size
        assert out.nbytes == len(states) * size, (out.shape, out.dtype)
        if not states:
            return
        # Half of the time that `out.ctypes.data` takes, which is as long as a mask; refuses what is not contiguous.
        address = addressof(c_char.from_buffer(out.data))
        rows: Sequence[int] = (0,)
        if len(states) > 1:  # up every line from its end: going back takes half as long as going forward
            lengths = [state.length for state in states]
            rows = sorted(range(len(states)), key=lengths.__getitem__, reverse=True)
        for row in rows:
            state = states[row]
            line = state.line
            if state.before is not None:
                out[row] = 0
                continue
            with line.lock:
                matcher = line.matcher if line.at == state.length else line.seek(state.length)
                matcher.unsafe_compute_mask_ptr(address + row * size, size)
                if matcher.is_error():
                    self._check(line, state)
                    out[row] = 0

    def accepted(self, state: State, tokens: Sequence[int]) -> int:
        """How many of `tokens`, one after the other, are allowed."""
        if state.before is not None:
            return 0
        eos, width = self.vocabulary.eos, self.vocabulary.width
        known = list(takewhile(lambda token: 0 <= token < width and token not in eos, tokens))
        with state.line.lock:
            matcher = state.line.seek(state.length)
            if not self._canonical:
                valid = int(matcher.validate_tokens(known))
                if valid < len(known) or len(known) == len(tokens):
                    return valid
            matcher = matcher.deep_copy()
        accepted = self._accept(matcher, known)
        ends = accepted == len(known) < len(tokens) and tokens[accepted] in eos and matcher.is_accepting()
        return accepted + ends

    def forced(self, state: State) -> tuple[int, ...]:
        """The tokens that must follow: as long as the mask has one bit, which is not an end-of-sequence token."""
        if state.before is not None:
            return ()
        with state.line.lock:
            matcher = state.line.seek(state.length)
            if not matcher.compute_ff_bytes():
                return ()
            matcher = matcher.deep_copy()
        tokens: list[int] = []
        while (token := self._only_token(matcher)) is not None:
            tokens.append(token)
            matcher.consume_token(token)
        return tuple(tokens)

    def expected(self, state: State) -> tuple[int, ...]:
        """The tokenizer's spelling of the bytes that must follow, without its last token, which may be cut short."""
        if state.before is not None:
            return ()
        with state.line.lock:
            text = state.line.seek(state.length).compute_ff_bytes()
        return self.vocabulary.spell(text)[:-1] if len(text) > 1 else ()

    def is_final(self, state: State) -> bool:
        """Whether the text may end here."""
        if state.before is not None:
            return True
        with state.line.lock:
            return bool(state.line.seek(state.length).is_accepting())

    def closing(self, state: State, enough: int = 0) -> tuple[int, ...] | None:
        """Tokens that complete the text: those of the guide, or of a search; see `treille.constraints.closing`."""
        if state.before is not None:
            return ()
        probe = self.probe(state)
        steps = None if self.guide is None else self.guide(self.text(state), probe)
        known = None if steps is None else spell_steps(self, state, steps)
        if known is not None and len(known) <= enough:
            return known
        steps = shortest_closing(probe, self._hints)
        found = None if steps is None else spell_steps(self, state, steps)
        return min((tokens for tokens in (found, known) if tokens is not None), key=len, default=None)

    def probe(self, state: State) -> "MatcherProbe":
        """The text of a state, for a search of what completes it."""
        with state.line.lock:
            return MatcherProbe(state.line.seek(state.length).deep_copy(), self.vocabulary)

    def text(self, state: State) -> bytes:
        """The text of a state."""
        with state.line.lock:
            return self.vocabulary.decode(state.line.tokens[: state.length])

    def _accept(self, matcher: llguidance.LLMatcher, tokens: list[int]) -> int:
        """Move a matcher over tokens as long as they are allowed, and count them."""
        if not self._canonical:
            return int(matcher.try_consume_tokens(tokens))
        for index, token in enumerate(tokens):
            forced = matcher.compute_ff_tokens()
            if (forced and forced[0] != token) or not matcher.try_consume_tokens([token]):
                return index
        return len(tokens)

    def _only_token(self, matcher: llguidance.LLMatcher) -> int | None:
        """The token of a mask with one bit, if that is not the end."""
        if self._canonical:
            forced = matcher.compute_ff_tokens()
            return forced[0] if forced else None
        if not matcher.compute_ff_bytes():
            return None
        mask = np.frombuffer(matcher.compute_bitmask(), "<i4")
        if np.count_nonzero(mask) != 1:
            return None
        tokens = [int(token) for token in self.vocabulary.tokens_of(mask)]
        return tokens[0] if len(tokens) == 1 and tokens[0] not in self.vocabulary.eos else None

    def _check(self, line: _Line, state: State) -> None:
        """Give a line whose matcher is in error a new one, and raise unless the error is a dead end.

        Raises:
            DecodingError: A limit was reached.
        """
        if not line.matcher.is_error():
            return
        reason = line.matcher.get_error()
        line.replace(self._root.deep_copy())
        if not reason.startswith(_DEAD_END):
            text = self.vocabulary.decode(line.tokens[: state.length])
            raise DecodingError(
                f"{self.name}: after {shorten(text)}: the recognizer gave up ({first_line(reason)}); "
                "write the constraint with fewer alternatives at this place"
            )


class MatcherProbe:
    """A matcher of its own, moved by bytes that are tokens."""

    def __init__(self, matcher: llguidance.LLMatcher, vocabulary: Vocabulary) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._forced: bytes | None = None
        self._possible: bytes | None = None

    def final(self) -> bool:
        """Whether the text may end here."""
        return bool(self._matcher.is_accepting())

    def forced(self) -> bytes:
        """Bytes that must follow; as many as the recognizer knows and the vocabulary can spell."""
        if self._forced is None:
            text: bytes = self._matcher.compute_ff_bytes()
            self._forced = text if all(bytes([byte]) in self._vocabulary.ids for byte in text) else b""
        return self._forced

    def possible(self) -> bytes:
        """All bytes of which each may follow."""
        if self._possible is None:
            ids, values = self._vocabulary.single_bytes
            mask = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
            possible = mask[ids].astype(bool)
            self._possible = values[possible].tobytes()
        return self._possible

    def then(self, step: Step) -> "MatcherProbe | None":
        """The text with `step` appended, None where it may not follow."""
        ids = self._vocabulary.ids
        tokens = [step] if isinstance(step, int) else [ids.get(bytes([byte]), (-1,))[0] for byte in step]
        if -1 in tokens:
            return None
        matcher = self._matcher.deep_copy()
        return MatcherProbe(matcher, self._vocabulary) if matcher.try_consume_tokens(tokens) == len(tokens) else None


def compile_grammar(
    grammar: Grammar, vocabulary: Vocabulary, tokenization: Tokenization, name: str
) -> GuidanceConstraint:
    """The constraint of a grammar.

    Raises:
        ParameterError: llguidance refuses the grammar, it takes too long, or no text satisfies it.
    """
    if tokenization not in get_args(Tokenization):
        raise ParameterError(f"tokenization={tokenization!r}: known are {', '.join(get_args(Tokenization))}")
    text = grammar.serialize(tokenization)
    check_bounded(text, vocabulary, name)
    root = llguidance.LLMatcher(vocabulary.environment, text, log_level=0)
    if root.is_error():
        raise ParameterError(f"{name}: {first_line(root.get_error())}")
    special = {text: token for token, text in vocabulary.special.items()}
    hints = [special[text] if text in special else text.encode() for text in grammar.hints]
    constraint = GuidanceConstraint(vocabulary, tokenization, name, root, hints)
    mask = np.empty((1, vocabulary.words), np.int32)
    constraint.masks([constraint.start()], mask)
    if not mask.any():
        raise ParameterError(f"{name}: no text that this vocabulary can spell satisfies it")
    return constraint
