"""The recorder: what it hears from an engine, and that it changes nothing."""

import json
import math
from types import SimpleNamespace

import pytest

from treille.engine.instruments import ForwardReport
from treille.requests import Argmax, Choice, LogProbs, Top, TopK
from treille.sampling.random import Random
from treille.strategy import Hypothesis, Limits, Output, Run
from treille.trace import Recorder
from treille.tree import Node

REPORT = ForwardReport("target", 1, 1, 1, 0.0, 0.0, 0.0)


class Letters:
    """Token 0 is `a`, and so on; token 26 and above are halves of `é`."""

    def decode(self, ids):
        """The text; an incomplete character is U+FFFD, as tokenizers give it."""
        return b"".join(bytes([97 + i]) if i < 26 else bytes([0xC3 if i == 26 else 0xA9]) for i in ids).decode(
            "utf-8", "replace"
        )


class Driver:
    """Plays the engine's part for one run."""

    def __init__(self, prompt=(0, 1), codec=None):
        self.run = Run(Node.root(prompt), Random(0), Limits(8), codec=codec)
        self.instruments = []
        self.recorder = Recorder(self.run, self.instruments)
        self.job = SimpleNamespace(run=self.run, configured="toy()", output=None, error=None)
        self.recorder.job_started(self.job)

    def forward(self, computed, *read):
        """One forward that computes nodes and answers readouts."""
        for node, want, result in read:
            self.recorder.read(self.job, node, want, result, "target")
        for node in computed:
            self.recorder.computed(self.job, [node], "target")
        self.recorder.after_forward(REPORT)

    def finish(self, *nodes):
        """The run returns."""
        self.job.output = Output(tuple(Hypothesis(node, -1.0) for node in nodes))
        self.recorder.job_finished(self.job)
        return self.recorder.trace


def kinds(trace):
    """Step, kind and nodes of every event."""
    return [(event.step, event.kind, event.nodes) for event in trace.events]


def test_events_of_a_small_run_in_order():
    """A prompt, two children, one dropped, the other returned with a last token that is never computed."""
    driver = Driver()
    tip = driver.run.tip
    driver.forward([tip], (tip, TopK(2), Top((2, 3), (-0.5, -1.0), (-0.5, -1.0))))
    kept, lost = tip.child(2), tip.child(3)
    driver.forward([kept, lost], (kept, Argmax(), Choice(4, -0.25, -0.25)), (lost, Argmax(), Choice(5, -2.0, -2.0)))
    del lost
    trace = driver.finish(kept.child(4))
    assert kinds(trace) == [
        (0, "prompt", (0,)),
        (0, "computed", (0,)),
        (0, "proposed", (0,)),
        (1, "accepted", (1,)),
        (1, "accepted", (2,)),
        (1, "computed", (1, 2)),
        (1, "proposed", (1,)),
        (1, "proposed", (2,)),
        (2, "rejected", (2,)),
        (2, "dropped", (2,)),
        (2, "accepted", (3,)),
        (2, "finished", (3,)),
    ]
    assert [node.parent for node in trace.nodes] == [None, 0, 0, 1]
    assert [node.logprob for node in trace.nodes] == [None, -0.5, -1.0, -0.25]
    assert trace.candidates == (3,)
    assert trace.steps == 2
    assert trace.path(3) == [0, 1, 3]


def test_nodes_are_watched_and_not_held():
    """A node that the strategy lets go is dropped at once, although it is traced."""
    driver = Driver()
    node = driver.run.tip.child(7)
    driver.forward([driver.run.tip, node])
    assert not driver.recorder.trace.of_kind("dropped")
    del node
    assert [event.nodes for event in driver.recorder.trace.of_kind("dropped")] == [(1,)]


def test_an_offer_that_nobody_took_is_rejected():
    """Of three offers one becomes a node; the other two are rejected at the end, with their log-probabilities."""
    driver = Driver()
    tip = driver.run.tip
    driver.forward([tip], (tip, LogProbs((4, 5)), (-1.0, -2.0)), (tip, Argmax(), Choice(6, -0.5, -0.5)))
    (rejected,) = driver.finish(tip.child(6)).of_kind("rejected")
    assert (rejected.nodes, rejected.tokens, rejected.values) == ((0,), (4, 5), (-1.0, -2.0))


def test_raw_log_probabilities_are_no_offers():
    """Values before processors are measurements; a node's log-probability is the one after them."""
    driver = Driver()
    tip = driver.run.tip
    driver.forward([tip], (tip, LogProbs((4,), raw=True), (-9.0,)))
    assert not driver.recorder.trace.of_kind("proposed")


def test_the_end_drops_what_is_not_returned():
    """Nodes that are still reachable when the run ends, and on no returned path, are dropped then."""
    driver = Driver()
    one, other = driver.run.tip.child(3), driver.run.tip.child(4)
    driver.forward([driver.run.tip, one, other])
    trace = driver.finish(one)
    assert [event.nodes for event in trace.of_kind("dropped")] == [(2,)]
    del other
    assert driver.recorder.trace == trace


def test_other_runs_are_not_recorded():
    """A recorder in a batch hears of every run and records its own."""
    driver, mate = Driver(), Driver()
    node = mate.run.tip
    driver.recorder.computed(mate.job, [node], "target")
    driver.recorder.read(mate.job, node, Argmax(), Choice(1, -1.0, -1.0), "target")
    driver.recorder.scored(mate.job, [node], [1.0])
    driver.recorder.preempted(mate.job)
    driver.recorder.after_forward(REPORT)
    driver.recorder.job_finished(mate.job)
    assert kinds(driver.recorder.trace) == [(0, "prompt", (0,))]
    assert driver.recorder in driver.instruments


def test_it_leaves_when_the_run_ends():
    """A finished run's recorder listens no longer; closing it again is harmless."""
    driver = Driver()
    driver.finish(driver.run.tip.child(1))
    assert driver.instruments == []
    driver.recorder.close()


@pytest.mark.parametrize(("error", "status"), [(ValueError("x"), "failed"), (None, "cancelled")])
def test_a_run_without_output_says_why(error, status):
    """A failed and a cancelled run have a trace too, with all their nodes dropped."""
    driver = Driver()
    driver.forward([driver.run.tip, node := driver.run.tip.child(2)])
    driver.job.error = error
    driver.recorder.job_finished(driver.job)
    trace = driver.recorder.trace
    assert (trace.status, trace.candidates) == (status, ())
    assert node.token == 2
    assert trace.of_kind("dropped")[0].nodes == (1,)
    assert "✗" in trace.text()


def test_scores_and_preemption_are_recorded():
    """A scorer's values stand next to their nodes; a preemption is told."""
    driver = Driver()
    node = driver.run.tip.child(2)
    driver.recorder.scored(driver.job, [node, driver.run.tip], [0.5, 0.25])
    driver.recorder.preempted(driver.job)
    trace = driver.recorder.trace
    assert (trace.of_kind("scored")[0].nodes, trace.of_kind("scored")[0].values) == ((1, 0), (0.5, 0.25))
    assert len(trace.of_kind("preempted")) == 1


def test_texts_of_the_nodes_make_the_text_of_the_path():
    """A character that spans two tokens belongs to the second, and the pieces joined are the whole text."""
    driver = Driver(prompt=(0, 1), codec=Letters())
    node = driver.run.tip
    for token in (2, 26, 27, 3):
        node = node.child(token)
    trace = driver.finish(node)
    assert [each.text for each in trace.nodes] == ["ab", "c", "", "é", "d"]


def test_a_forced_span_is_one_node():
    """A node of several tokens keeps them all; its log-probability is not known from its first token."""
    driver = Driver(codec=Letters())
    tip = driver.run.tip
    driver.forward([tip], (tip, Argmax(), Choice(5, -0.5, -0.5)))
    trace = driver.finish(tip.extend([5, 6, 7]))
    assert (trace.nodes[1].tokens, trace.nodes[1].text, trace.nodes[1].logprob) == ((5, 6, 7), "fgh", None)


def test_the_dictionary_is_json():
    """`to_dict` survives JSON and tells every node and event."""
    driver = Driver(codec=Letters())
    driver.forward([driver.run.tip], (driver.run.tip, Argmax(), Choice(5, -0.5, -0.5)))
    trace = driver.finish(driver.run.tip.child(5))
    found = json.loads(json.dumps(trace.to_dict(), allow_nan=False))
    assert len(found["nodes"]) == 2
    assert [event["kind"] for event in found["events"]] == [event.kind for event in trace.events]
    assert found["token_texts"] == {"5": "f"}
    assert math.isclose(found["nodes"][1]["logprob"], -0.5)
