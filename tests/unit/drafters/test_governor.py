"""The governor: goodput by the formula, its limits, and that it changes no text."""

from __future__ import annotations

from itertools import pairwise

import pytest

from treille.drafters.governor import ARMS, EXPLORATION, PROBE, SHARE, SOON, STANDS, Costs, Governor


def settled(alpha, seconds_of, texts=1, others=0, draft=0.0, most=8):
    """A governor that has seen chains of acceptance `alpha` on a machine with the given pass times; its budget."""
    governor = Governor()
    budget = governor.open("chain")
    for rows in range(1, texts * (most + 1) + others + 1):
        governor.costs.learn(rows, seconds_of(rows))
    for k in ARMS[1:]:
        if k <= most:
            emitted = (1 - alpha ** (k + 1)) / (1 - alpha)
            for _ in range(EXPLORATION):
                budget.known.arms[k].learn(emitted, k, draft * k)
    governor.last.rows, governor.last.texts = texts + others, texts
    return budget.rows(most)


def toy(rows):
    """The pass time of the method cards' toy, target alone."""
    return 10 + 0.2 * rows


def test_costs_are_interpolated_and_never_fall():
    """Between measurements linear; beyond them the nearest; noise cannot make more rows cheaper."""
    costs = Costs()
    assert costs.of(3) == 1.0
    for rows, seconds in ((1, 1.0), (4, 0.9), (8, 2.0)):
        costs.learn(rows, seconds)
    assert costs.of(1) == 1.0
    assert costs.of(2) == 1.0
    assert costs.of(6) == pytest.approx(1.45)
    assert costs.of(64) == 2.0
    costs.learn(1, 100.0)
    assert costs.of(1) < 1.1


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.7, 0.9])
def test_budgets_never_rise_with_the_batch(alpha):
    """More texts share the pass, so each may draft at most as much."""
    budgets = [settled(alpha, toy, texts) for texts in (1, 4, 16, 64)]
    assert budgets == sorted(budgets, reverse=True)


@pytest.mark.parametrize("texts", [1, 4, 16])
def test_budgets_never_fall_with_acceptance(texts):
    """A better drafter may draft at least as much."""
    budgets = [settled(alpha, toy, texts) for alpha in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert budgets == sorted(budgets)


def test_a_drafter_that_has_become_good_is_noticed_soon():
    """After one try that succeeded the next ones follow at once, until the budget is drafted; failures end that."""
    governor = Governor()
    budget = governor.open("chain")
    for rows in range(1, 17):
        governor.costs.learn(rows, 1 + 0.12 * rows)
    for k in ARMS[1:]:
        for _ in range(4 * EXPLORATION):
            budget.known.arms[k].learn(1.0, k, 0.0)
    governor.last.rows = governor.last.texts = 1
    budget.known.next_probe = 256

    def drafted(steps, kept):
        """Steps of these in which something was drafted, of which `kept` tokens at the most were right."""
        count = 0
        for _ in range(steps):
            k = budget.rows(8)
            budget.verified(k, k, 1 + min(k, kept), 0.0)
            count += k > 0
        return count

    assert drafted(255, 8) == 0
    drafted(64, 8)
    assert drafted(32, 8) == 32
    drafted(256, 0)
    assert drafted(512, 0) <= 512 / PROBE


@pytest.mark.parametrize("kept", [0, 8])
def test_tries_that_do_not_pay_take_a_small_share_of_the_time(kept):
    """A try that costs as much as four steps is not repeated within hundreds, even if all of it was right."""
    governor = Governor()
    budget = governor.open("dear")
    for rows in range(1, 17):
        governor.costs.learn(rows, 1.0)
    for k in ARMS[1:]:
        for _ in range(EXPLORATION):
            budget.known.arms[k].learn(1.0, k, 20.0)
    governor.last.rows = governor.last.texts = 1
    dear = 4.0 if not kept else 9.0  # more than the steps that are saved
    tries = []
    for step in range(5000):
        if k := budget.rows(8):
            budget.verified(k, k, 1 + min(k, kept), dear)
            tries.append(step)
    assert 4 <= len(tries) <= 7
    assert min(b - a for a, b in pairwise(tries)) >= 4 / SHARE


def test_what_a_try_drafts_beside_the_target_is_counted():
    """Also a draft model's forwards that come after the try was verified put off the next one."""
    governor = Governor()
    budget = governor.open("beside")
    for k in ARMS[1:]:
        for _ in range(EXPLORATION):
            budget.known.arms[k].learn(1.0, 0, 0.0)
    tries = []
    for step in range(5000):
        if k := budget.rows(8):
            tries.append(step)
        governor.proposed(0)
        governor.forward(1, 1.0, read=1, drafting=False)
        if k:
            budget.verified(0, 0, 1, 0.0)
            governor.forward(40, 4.0, read=40, drafting=True)
    assert 4 <= len(tries) <= 7
    assert min(b - a for a, b in pairwise(tries)) >= 4 / SHARE


def test_a_try_of_a_draft_model_that_paid_is_repeated_soon():
    """The draft model's time of a try that was worth it does not put off the next one."""
    governor = Governor()
    budget = governor.open("model")
    for k in ARMS[1:]:
        for _ in range(EXPLORATION):
            budget.known.arms[k].learn(1.0, k, 20.0)
    tries = []
    for step in range(PROBE + 64):
        k = budget.rows(8)
        if k:
            tries.append(step)
            governor.forward(1, 0.5, read=1, drafting=True)
        governor.proposed(k)
        governor.forward(1 + k, 1.0, read=1 + k, drafting=False)
        if k:
            budget.verified(k, k, 1 + k, 0.0)
    assert tries[0] < 2 * PROBE
    assert tries[1] - tries[0] <= SOON + STANDS  # a decision stands


def test_a_useless_drafter_is_not_asked():
    """Acceptance near zero on a machine where rows cost: plain decoding."""
    assert settled(0.01, float) == 0


def test_the_best_budget_maximises_goodput():
    """The budget is the arm with the highest tokens per second by the formula, drafting time included."""
    alpha, draft = 0.7, 0.8

    def goodput(k):
        return (1 - alpha ** (k + 1)) / (1 - alpha) / (toy(1 + k) + draft * k)

    best = max((k for k in ARMS if k <= 8), key=goodput)
    assert settled(alpha, toy, draft=draft) == best


def test_others_in_the_batch_count():
    """Rows of requests that do not draft share the pass: the same drafter drafts at most as much beside them."""
    steep = [settled(0.5, lambda rows: max(10.0, 1.0 * rows), others=others) for others in (0, 8, 32)]
    assert steep == sorted(steep, reverse=True)


def test_a_chain_teaches_smaller_budgets_too():
    """One step of eight rows tells what a budget of three would have brought."""
    governor = Governor()
    budget = governor.open("chain")
    budget.rows(8)
    budget.verified(8, 8, 6, 0.008)
    assert budget.known.arms[8].emitted == 6
    assert budget.known.arms[3].emitted == 4
    assert budget.known.arms[3].seconds == pytest.approx(0.003)
    assert budget.known.arms[12].count == 0


def test_what_the_target_does_for_drafts_is_no_cheap_step():
    """A forward for what drafts look at adds to the time of drafting; it teaches no cost, and is no load."""
    governor = Governor()
    governor.forward(4, 0.004, read=4, drafting=False)
    governor.forward(4, 0.0001, read=4, drafting=True)
    assert governor.costs.of(4) == 0.004
    assert governor.last.rows == 4
    governor.forward(4, 0.004, read=4, drafting=False)
    assert governor.last.draft_seconds == 0.0001


def test_rows_of_a_prompt_are_no_load():
    """A prompt of 90 rows of which one is read beside a text counts as two rows."""
    governor = Governor()
    governor.forward(91, 0.01, read=2, drafting=False)
    assert governor.last.rows == 2
    assert governor.costs.of(91) == 0.01


def test_a_decision_falls_with_the_load_it_was_made_for():
    """Alone a text drafts; when seven others join, the standing decision is made anew, and its drafts no longer pay."""
    governor = Governor()
    budget = governor.open("chain")
    for rows in range(1, 81):
        governor.costs.learn(rows, max(4.0, float(rows)))
    for k in ARMS[1:7]:
        for _ in range(EXPLORATION):
            budget.known.arms[k].learn((1 - 0.7 ** (k + 1)) / 0.3, k, 0.0)
    governor.last.rows = governor.last.texts = 1
    assert budget.rows(8) > 0
    assert not budget.resting
    governor.last.rows = governor.last.texts = 8
    assert budget.rows(8) == 0
    assert budget.resting


def test_a_drafter_that_was_given_up_is_probed():
    """At k = 0 a few rows are tried now and then."""
    governor = Governor()
    budget = governor.open("bad")
    for rows in range(1, 80):
        governor.costs.learn(rows, float(rows))
    chosen = []
    for _ in range(200):
        rows = budget.rows(8)
        governor.proposed(rows)
        governor.forward(1 + rows, float(1 + rows), read=1 + rows, drafting=False)
        if rows:
            budget.verified(rows, rows, 1, 0.0)
        chosen.append(rows)
    late = chosen[EXPLORATION + 10 :]
    assert late.count(0) > 0.9 * len(late)
    assert any(late)
