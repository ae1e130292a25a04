"""Best-of-N; its laws are in tests/laws."""

import math

import pytest

from treille.errors import ParameterError
from treille.strategies import best_of_n, sample
from treille.strategies.best_of_n import group_sums, step_ends
from treille.testing import TableModel, run_alone

MODEL = TableModel.random(4, 2)
LIMITS = {"max_new_tokens": 6, "eos_token_ids": (3,)}


def count_b(texts):
    """One point per `b`."""
    return [float(text.text.count("b")) for text in texts]


def test_candidates_are_sorted_by_score_and_come_from_the_samples():
    """The n texts are those of `sample` with the same seed; one scorer call values all; the prompt is computed once."""
    drawn = run_alone(sample(num_return_sequences=6), MODEL, **LIMITS).texts
    done = run_alone(best_of_n(n=6, scorer=count_b), MODEL, num_return_sequences=6, **LIMITS)
    assert sorted(done.texts) == sorted(drawn)
    scores = [h.score for h in done.output.candidates]
    assert scores == sorted(done.output.details["scores"], reverse=True)
    assert list(done.output.details["scores"]) == [float(text.count(1)) for text in drawn]
    assert (done.scorer_calls, done.scored) == (1, 6)
    assert done.output.details["expected_best"][-1] == max(scores)


def test_the_first_drawn_wins_a_tie():
    """With equal scores the order is that of drawing."""
    drawn = run_alone(sample(num_return_sequences=4), MODEL, **LIMITS).texts
    done = run_alone(best_of_n(scorer=lambda texts: [1.0] * len(texts)), MODEL, num_return_sequences=4, **LIMITS)
    assert done.texts == drawn


def test_without_a_scorer_the_rank_is_the_mean_log_probability():
    """Of the model alone, per generated token."""
    done = run_alone(best_of_n(n=5), MODEL, **LIMITS)
    best = done.output.candidates[0]
    assert best.score == pytest.approx(math.log(MODEL.probability(done.text, (0,))) / len(done.text))
    assert best.score == max(done.output.details["scores"])


@pytest.mark.parametrize("aggregate", ["last", "min", "prod"])
def test_step_scores_are_aggregated(aggregate):
    """A scorer sees the text up to each delimiter and the whole text, each once; their values are combined."""
    seen = []

    def scorer(texts):
        seen.extend(text.text for text in texts)
        return [1.0 + len(text.text) / 10 for text in texts]

    done = run_alone(best_of_n(n=3, scorer=scorer, step_delimiter="b", aggregate=aggregate), MODEL, **LIMITS)
    combine = {"last": lambda v: v[-1], "min": min, "prod": math.prod}[aggregate]
    wanted, prefixes = [], []
    for tokens in run_alone(sample(num_return_sequences=3), MODEL, **LIMITS).texts:
        letters = "".join("abc"[t] for t in tokens if t != 3)
        steps = [letters[: i + 1] for i, letter in enumerate(letters) if letter == "b"]
        if tokens[-1] == 3 or not steps or steps[-1] != letters:
            steps.append(letters)
        prefixes += steps
        wanted.append(combine([1.0 + len(step) / 10 for step in steps]))
    assert seen == prefixes
    assert done.output.details["scores"] == pytest.approx(tuple(wanted))


def test_a_delimiter_inside_a_token_ends_its_step_there():
    """Steps end at the first node whose text reaches the end of the delimiter."""

    class Codec:
        def decode(self, ids):
            return "".join(("x", ".\n", "y.\nz")[i] for i in ids)

    done = run_alone(sample(), TableModel.random(3, 0), codec=Codec())
    node = done.run.tip
    for token in (0, 2, 0, 1):
        node = node.child(token)
    assert [end.length for end in step_ends(done.run, node, ".\n")] == [3, 5]


def test_groups_of_equal_answers_add_their_scores():
    """With `extract`, two middling texts with one answer beat a single good one; no answer ranks last."""
    assert group_sums(["x", "y", "x", None], [2.0, 3.0, 2.0, 9.0]) == [4.0, 3.0, 4.0, -math.inf]
    done = run_alone(best_of_n(n=6, scorer=count_b, extract=lambda text: text[:1] or None), MODEL, **LIMITS)
    groups = {}
    for text in run_alone(sample(num_return_sequences=6), MODEL, **LIMITS).texts:
        groups[text[0]] = groups.get(text[0], 0.0) + text.count(1)
    assert done.output.candidates[0].score == max(groups.values())


@pytest.mark.parametrize(
    ("strategy", "more", "message"),
    [
        (best_of_n(n=0), {}, "n=0 is too small"),
        (best_of_n(aggregate="mean"), {}, "choose one of last, min, prod"),
        (best_of_n(step_delimiter="b"), {}, "need a scorer"),
        (best_of_n(extract=str), {}, "need a scorer"),
        (best_of_n(scorer=count_b, step_delimiter=""), {}, "ends no step"),
        (best_of_n(), {"num_return_sequences": 5}, "raise n"),
        (best_of_n(), {"do_sample": False}, "would be the same"),
    ],
)
def test_refusals(strategy, more, message):
    """Each refusal names the value and the way out."""
    with pytest.raises(ParameterError, match=message):
        run_alone(strategy, MODEL, **more)
