"""Rounds of decoding: what they take before and after the prompts, and what they count."""

from types import SimpleNamespace

import pytest

from treille.bench.rounds import Decoding, PromptsRead, total
from treille.bench.texts import Text
from treille.errors import ParameterError
from treille.hooks import DraftCounts
from treille.language_model import load


@pytest.fixture(scope="module")
def lm():
    """The bundled model."""
    return load(prefix_cache=False)


def test_counts_of_several_runs_add_up():
    """Sums, also of lists of different lengths; what is summed stays as it was."""
    one = DraftCounts(2, 6, 3, 5, tried=[2], kept=[1], depths=[0, 2], forced=4, backtracked=1, seconds=0.5)
    other = DraftCounts(1, 1, 1, 2, tried=[1, 1], kept=[1, 0], depths=[1], forced=1, backtracked=2, seconds=0.25)
    whole = total([one, other])
    assert whole == DraftCounts(3, 7, 4, 7, [3, 1], [2, 0], [1, 2], forced=5, backtracked=3, seconds=0.75)
    assert (one.tried, other.depths) == ([2], [1])


def test_prompts_are_read_with_the_first_answer_to_the_last_of_them():
    """A run counts once; what a draft model reads does not count."""
    read = PromptsRead()
    first, second = SimpleNamespace(number=1), SimpleNamespace(number=2)
    times = []
    for job, model in ((first, "target"), (first, "target"), (second, "draft"), (second, "target"), (first, "target")):
        read.read(job, None, None, None, model)
        times.append(read.at)
    assert times[0] == times[1] == times[2] < times[3] == times[4]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("draft", [None, "prompt_lookup"])
def test_a_round_is_every_text_once(lm, batch, draft):
    """The time after the prompts is a part of the time; the engine keeps no listener."""
    texts = [Text(lm.encode(f"{word} a b c a b"), ()) for word in ("one", "two", "three")]
    given = {"max_new_tokens": 5, "eos_token_id": []} | ({} if draft is None else {"draft": draft})
    side = Decoding(lm, texts, batch, given, replayed=False)
    seconds = [side(), side()]
    assert [one.seconds for one in side.rounds] == seconds
    for one in side.rounds:
        assert 0 < one.after_prompt < one.seconds
        assert one.tokens == 15
        assert one.counts.emitted == (0 if draft is None else 15)
    assert not lm.engine.instruments


def test_recorded_texts_are_decoded_to_their_ends(lm):
    """A replayed text is as long as its record, whatever the limit."""
    texts = [Text(lm.encode("x = "), (5, 900, 17)), Text(lm.encode("y = "), (5, 900, 17, 17, 2000))]
    side = Decoding(lm, texts, 2, {"max_new_tokens": 96, "draft": "suffix"}, replayed=True)
    side()
    assert side.rounds[0].tokens == 8


def test_a_refusal_leaves_no_listener(lm):
    """What cannot be decoded is refused, and the engine is as it was."""
    side = Decoding(lm, [Text([1, 2], ())], 1, {"max_new_tokens": 0}, replayed=False)
    with pytest.raises(ParameterError):
        side()
    assert not side.rounds
    assert not lm.engine.instruments
