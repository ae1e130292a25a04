"""How much to draft: as much as pays, by the measured cost of a forward and the observed acceptance.

SmartSpec (Liu et al. 2024, arXiv:2406.14066) maximises goodput, the tokens emitted per second of a whole batch:

    goodput(k) = (E + n e(k)) / (T(R + n (1 + r(k))) + n d(k))

n texts are drafted for, with e(k) tokens emitted, r(k) rows used and d(k) seconds of drafting per step when k rows are
allowed; the others of the batch have R rows and emit E tokens; T is the measured time of a forward by its rows. While
k = 0, which is plain decoding, a draft is tried now and then, so that a drafter that has become good is noticed.

Nothing here can change a text: budgets decide how fast it comes. They depend on measured times, so a run verified by
rejection, whose text depends on its drafts, is governed only where the caller asks for it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

ARMS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
EXPLORED = (8, 4, 16, 8, 2, 8)  # budgets of a drafter's first steps, in turn, while its tables fill
EXPLORATION = 24  # of these steps
STANDS = 8  # steps for which a decision stands while the load does: deciding costs time, too
PROBE = 32  # steps between tries of a neighbour of the best budget; while k = 0 at least as many
SHARE = 0.005  # of the time that tries may take while k = 0: a lookup costs a row or two, a draft model reads the text
LONGEST = 1024  # steps between tries at the most
SOON = 4  # steps to the next try after one that paid
WORTH = 1.1  # a draft has to promise this much of plain decoding's goodput: what surrounds a step is not measured
FORGET = 0.06  # weight of a new observation
LARGEST = 1024  # rows; forwards with more are prefills


class Costs:
    """Seconds of a forward by its number of rows, learned from every forward."""

    def __init__(self) -> None:
        self._rows: list[int] = []  # ascending
        self._seconds: dict[int, float] = {}

    def learn(self, rows: int, seconds: float) -> None:
        """Add a measurement; one far above what is known counts as twice it, because machines are shared."""
        if rows > LARGEST:
            return
        known = self._seconds.get(rows)
        if known is None:
            insort(self._rows, rows)
            self._seconds[rows] = seconds
        else:
            self._seconds[rows] = known + FORGET * (min(seconds, 2 * known) - known)

    def of(self, rows: float) -> float:
        """Seconds of a forward of `rows` rows: interpolated; beyond what was measured, like the nearest."""
        if not self._rows:
            return 1.0
        at = bisect_left(self._rows, rows)
        if at == 0:
            return self._seconds[self._rows[0]]
        if at == len(self._rows):
            return self._seconds[self._rows[-1]]
        low, high = self._rows[at - 1], self._rows[at]
        share = (rows - low) / (high - low)
        a, b = self._seconds[low], self._seconds[high]
        return a + share * (max(a, b) - a)  # more rows never cost less; a lower figure is noise


@dataclass(slots=True)
class Arm:
    """What a budget of so many rows brought: averages per step that forget.

    Attributes:
        emitted: tokens, the bonus token included.
        rows: nodes drafted.
        seconds: time of the drafter and of its models.
        count: observations.
    """

    emitted: float = 1.0
    rows: float = 0.0
    seconds: float = 0.0
    count: int = 0

    def learn(self, emitted: float, rows: float, seconds: float) -> None:
        """Add a step."""
        self.count += 1
        weight = max(FORGET, 1 / self.count)
        self.emitted += weight * (emitted - self.emitted)
        self.rows += weight * (rows - self.rows)
        self.seconds += weight * (seconds - self.seconds)


@dataclass(slots=True)
class Known:
    """What one drafter's budgets brought, in all texts it drafted for.

    Attributes:
        arms: by budget.
        steps: so far.
        next_probe: number of steps at which another budget than the best is tried.
        turn: probes so far.
        tried_at: number of steps at the last try.
        drafting: what the governor's `drafting` was then.
        best: the best budget when it was judged last, for the load `judged` and at step `judged_at`.
    """

    arms: dict[int, Arm] = field(default_factory=lambda: {k: Arm() for k in ARMS})
    steps: int = 0
    next_probe: int = PROBE
    turn: int = 0
    tried_at: int = 0
    drafting: float = 0.0
    best: int = 0
    judged: tuple[int, int, int] | None = None
    judged_at: int = 0


@dataclass(slots=True)
class Load:
    """What the last forward of the target was made of."""

    rows: int = 0  # of all, without those that only belong to a prompt
    texts: int = 0  # drafted for
    drafted: int = 0  # rows of theirs beyond one each
    draft_seconds: float = 0.0  # forwards of draft models before it


class Governor:
    """Knows costs and acceptance of one language model; every run's budgets come from here."""

    def __init__(self) -> None:
        self.costs = Costs()
        self.last = Load()
        self.drafting = 0.0  # seconds of all forwards of draft models
        self._next = Load()
        self._known: dict[str, Known] = {}

    def forward(self, rows: int, seconds: float, *, read: int, drafting: bool) -> None:
        """A forward is done, of texts or for what drafts look at; `read` of its rows are no mere part of a prompt."""
        if drafting:
            self._next.draft_seconds += seconds
            self.drafting += seconds
            return
        self.costs.learn(rows, seconds)
        self._next.rows = read
        self.last, self._next = self._next, Load()

    def open(self, drafter: str) -> Budgeting:
        """Budgets for one text drafted for by `drafter`; it begins with what earlier texts have shown."""
        return Budgeting(self, self._known.setdefault(drafter, Known()))

    def proposed(self, rows: int) -> None:
        """A text's draft of so many rows joins the next forward."""
        self._next.texts += 1
        self._next.drafted += rows


@dataclass(slots=True)
class Budgeting:
    """Chooses the budget of one text, step by step.

    Attributes:
        governor: of the language model.
        known: what the drafter's budgets brought; shared with its other texts.
    """

    governor: Governor
    known: Known
    _steps: int = field(default=0)
    _chosen: int = field(default=0)
    _stands: int = field(default=0)  # steps for which the decision stands
    _load: int = field(default=0)  # rows of the forward after which it was taken, but for drafted ones
    _trying: bool = field(default=False)  # whether this step is a try of a drafter at rest

    def rows(self, most: int) -> int:
        """Rows that this step should draft, `most` at the most."""
        self._steps += 1
        self.known.steps += 1
        load = self.governor.last.rows - self.governor.last.drafted
        if not self._stands or self._chosen > most or not 0.75 * load <= self._load <= 1.25 * load:
            self._chosen, self._stands = self._decide([k for k in ARMS if k <= most])
            self._load = load
        self._stands -= 1
        return self._chosen

    @property
    def resting(self) -> bool:
        """Whether the last decision was not to draft: the drafter need not learn from a text that it does not see."""
        return not self._chosen

    def _decide(self, allowed: list[int]) -> tuple[int, int]:
        """A budget, and the steps for which it stands."""
        known, arms = self.known, self.known.arms
        self._trying = False  # the last try may have come to a dead end, which nobody tells
        explored = self._explored(allowed)
        best = self._best(allowed) if explored else 0
        probing = explored and known.steps >= known.next_probe
        if probing and not best and (rested := self._rested()) > known.steps:
            probing, known.next_probe = False, rested
        if best or probing or not explored:
            known.tried_at, known.drafting = known.steps, self.governor.drafting
        if not explored:
            return max(k for k in allowed if k <= EXPLORED[(self._steps - 1) % len(EXPLORED)]), 1
        if probing:
            known.turn += 1
            self._trying = not best
            # One of the texts probes for all.
            known.next_probe = known.steps + PROBE * max(1, self.governor.last.texts)
            return self._probe(best, allowed, known.turn), 1
        larger = next((k for k in allowed if k > best), best)
        if best and not arms[larger].count and arms[best].rows > 0.75 * best:
            return larger, 1  # the largest tried was used up: try the next
        return best, STANDS

    def _explored(self, allowed: list[int]) -> bool:
        """Whether the drafter's first steps are over."""
        return sum(self.known.arms[k].count for k in allowed) >= EXPLORATION

    def _rested(self) -> int:
        """The step from which on the draft models' time since the last try is the share of the time that tries have.

        Not all of it is known when the try is verified: some draft while the target computes.
        """
        known, governor = self.known, self.governor
        plain = governor.costs.of(governor.last.rows - governor.last.drafted)
        rest = min((governor.drafting - known.drafting) / (SHARE * plain), LONGEST)
        return known.tried_at + int(rest * max(1, governor.last.texts))

    def _best(self, allowed: list[int]) -> int:
        """The budget with the highest goodput of those that were tried, 0 where none is worth it.

        Texts of one batch share the judgement, until something is learned of a draft: eight judgements a step would
        take as long as drafting can save.
        """
        known, last = self.known, self.governor.last
        load = (last.rows - last.drafted, last.texts, allowed[-1])
        if known.judged != load or known.steps - known.judged_at >= PROBE:
            best = max((k for k in allowed if k and known.arms[k].count), key=lambda k: self._goodput(known.arms[k]))
            known.best = best if self._pays(known.arms[best]) else 0
            known.judged, known.judged_at = load, known.steps
        return known.best

    @staticmethod
    def _probe(best: int, allowed: list[int], turn: int) -> int:
        """A neighbour of the best budget, above and below in turn; what is forgotten is seen again."""
        at = allowed.index(best)
        step = 1 if turn % 2 or at == 0 else -1
        return allowed[min(at + step, len(allowed) - 1)] if best else allowed[min(3, len(allowed) - 1)]

    def _pays(self, arm: Arm) -> bool:
        """Whether drafting like that is worth it, beside plain decoding."""
        return self._goodput(arm) >= WORTH * self._goodput(self.known.arms[0])

    def _goodput(self, arm: Arm) -> float:
        """Tokens per second of the whole batch if every drafted text had such steps."""
        load = self.governor.last
        texts = max(1, load.texts)
        others = max(0, load.rows - load.drafted - texts)
        time = self.governor.costs.of(others + texts * (1 + arm.rows)) + texts * arm.seconds
        return (others + texts * arm.emitted) / time

    def verified(self, size: int, depth: int, emitted: int, seconds: float) -> None:
        """A step is done: `size` rows were drafted, `depth` deep, in `seconds`, and `emitted` tokens came of it."""
        if not self._chosen:
            return
        known, load = self.known, self.governor.last
        known.judged = None
        own, texts = seconds, max(1, load.texts)
        seconds += load.draft_seconds / texts
        if self._trying and self._pays(Arm(emitted, size, seconds)):  # it may have come to a place where more do
            known.next_probe = known.steps + SOON * texts
            known.tried_at, known.drafting = known.steps, self.governor.drafting  # what it took is paid
        elif self._trying:
            plain, whole = (self.governor.costs.of(rows) for rows in (load.rows - load.drafted, load.rows))
            rest = min((own + whole - plain) / (SHARE * plain), LONGEST)
            known.next_probe = max(known.next_probe, known.steps + int(rest * texts))
        self._trying = False
        if size != depth or not size:
            known.arms[self._chosen].learn(emitted, size, seconds)
            return
        # Of a chain, the same step with a smaller budget is known as well.
        for k in ARMS:
            if 0 < k <= self._chosen:
                known.arms[k].learn(min(emitted, k + 1), min(size, k), seconds * min(size, k) / size)
