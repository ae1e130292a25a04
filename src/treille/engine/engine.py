"""The engine: one loop that drives every running strategy.

A step resumes each runnable strategy until it yields, gathers their forwards by model, packs as many token rows as the
budget allows into one forward pass, computes the readouts batched by kind, and hands the answers back. That is all:
methods live in the strategies, exactness in the readouts, memory in the handles that nodes own.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch

from treille.cache.slots import OutOfSlots
from treille.drafters.governor import Governor
from treille.engine import readouts
from treille.engine.batch import Packer, by_layers, is_long
from treille.engine.instruments import ForwardReport, Instrument
from treille.engine.job import Group, Job, Pending, Task, is_output
from treille.engine.masking import Masks
from treille.engine.races import losers, winner
from treille.engine.refusals import refusal
from treille.engine.runner import one_thread
from treille.engine.scoring import scored
from treille.engine.variant import variant_of
from treille.errors import CapacityError, DecodingError, ParameterError, StrategyError
from treille.requests import Argmax, Call, Forward, Gather, Race, Sample, Score

if TYPE_CHECKING:
    import random as standard_random
    from collections.abc import Mapping, Sequence

    from treille.engine.batch import Batch
    from treille.engine.readouts import Reading
    from treille.engine.runner import ModelRunner
    from treille.requests import Layers
    from treille.sampling.chain import Chain
    from treille.strategy import Configured, Output, Run


class Engine:
    """Runs jobs: submit some, call `step` until they are done.

    Args:
        runners: the models by name; `"target"` is the one whose distribution is wanted.
        budget: token rows of one forward at the most; long prompts are computed in chunks of it.
        instruments: listeners.
        debug: check the slot accounts after every step.
        shuffle: randomises the order of all work, to test that results do not depend on it.
    """

    def __init__(
        self,
        runners: Mapping[str, ModelRunner],
        *,
        budget: int = 512,
        instruments: Sequence[Instrument] = (),
        debug: bool = False,
        shuffle: standard_random.Random | None = None,
    ) -> None:
        if budget < 1:
            raise ParameterError(f"budget={budget}: a forward needs at least one row")
        self.runners = dict(runners)
        self.budget = budget
        self.instruments = list(instruments)
        self.debug = debug
        self.shuffle = shuffle
        self.governor = Governor()  # learns what forwards cost
        self.jobs: dict[int, Job] = {}
        self._submitted = 0
        self._ready: deque[tuple[Task, Any, BaseException | None]] = deque()
        self._pending: dict[str, list[Pending]] = {name: [] for name in self.runners}
        self._scores: list[tuple[Task, Score]] = []
        self._calls: queue.SimpleQueue[tuple[Task, Future[Any]]] = queue.SimpleQueue()
        self._calling = 0
        self._called = threading.Event()
        self._computing = False
        self._executor: ThreadPoolExecutor | None = None
        self._roots: dict[int, Task] = {}

    def add(self, runner: ModelRunner) -> None:
        """Register one more model, e.g. a draft model, under its runner's name."""
        self.runners[runner.name] = runner
        self._pending[runner.name] = []

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def submit(self, configured: Configured, run: Run, chain: Chain | None = None) -> Job:
        """Start a strategy up to its first request.

        Raises:
            UserError: the strategy refused its parameters, or the run can never fit.
        """
        runner = self.runners["target"]
        longest = run.tip.length + run.limits.max_new_tokens
        scratch = 0 if run.draft is None else run.draft.rows
        if longest + scratch > runner.memory.slots:
            drafted = f" + draft_rows ({scratch})" if scratch else ""
            raise CapacityError(
                f"prompt ({run.tip.length} tokens) + max_new_tokens ({run.limits.max_new_tokens}){drafted} exceed the "
                f"KV memory of {runner.memory.slots} tokens; shorten them or load with a larger kv_slots"
            )
        self._submitted += 1
        job = Job(self._submitted, configured, run, chain)
        self.jobs[job.number] = job
        task = Task(job, configured.start(run), None, 0)
        self._roots[job.number] = task
        for instrument in self.instruments:
            instrument.job_started(job)
        self._advance(task, None, None)
        if isinstance(job.error, ParameterError | CapacityError):
            raise job.error
        return job

    def cancel(self, job: Job) -> None:
        """Close a job's strategies; what they held is free. A finished job is left alone."""
        if not job.done:
            self._close(self._roots[job.number])
            self._end(job)

    def run(self, jobs: Sequence[Job]) -> list[Output]:
        """Step until `jobs` are done; their outputs. If one failed, the rest is cancelled and its error is raised."""
        try:
            while not all(job.done for job in jobs):
                self.wait()
                self.step()
            return [job.result() for job in jobs]
        finally:
            for job in jobs:
                self.cancel(job)

    # --- the loop -----------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Resume what is runnable, then compute one forward per model (and its layers) waited for; no `Call` is.

        Raises:
            DecodingError: called from inside a forward, i.e. from a processor.
        """
        if self._computing:
            raise DecodingError(
                "a processor cannot decode with the engine that waits for it; use another LanguageModel, or a Call"
            )
        self._collect_calls()
        self._resume()
        self._score()
        for name, pendings in tuple(self._pending.items()):
            for layers, group in by_layers(pendings):
                self._forward(self.runners[name], layers, group)
        if self.debug:
            accounts = {name: runner.store.accounts() for name, runner in self.runners.items()}
            for account in accounts.values():
                account.check()
            for instrument in self.instruments:
                instrument.after_step(accounts)

    def wait(self, seconds: float = 0.1) -> None:
        """Block, for `seconds` at most, while everything waits for a `Call`; needs no lock that guards `step`."""
        if self._calling and not (self._ready or self._scores or any(self._pending.values())):
            self._called.wait(seconds)

    def _resume(self) -> None:
        while self._ready:
            if self.shuffle is not None:
                self._ready.rotate(self.shuffle.randrange(len(self._ready)))
            self._advance(*self._ready.popleft())

    def _advance(self, task: Task, value: Any, error: BaseException | None) -> None:
        """Resume one generator until its next request, its end or its failure."""
        if task.closed:
            return
        try:
            request = task.generator.send(value) if error is None else task.generator.throw(error)
        except StopIteration as stop:
            self._finished(task, stop.value)
        except Exception as failure:  # noqa: BLE001 - a strategy's failure is its job's, never the engine's
            self._failed(task, failure)
        else:
            self._dispatch(task, request)

    def _dispatch(self, task: Task, request: object) -> None:
        match request:
            case Forward():
                self._await_forward(task, request)
            case Gather() | Race():
                self._branch(task, request)
            case Score():
                self._scores.append((task, request))
            case Call():
                self._calling += 1
                self._executor = self._executor or ThreadPoolExecutor(thread_name_prefix="treille-call")
                future = self._executor.submit(request.function, *request.args)
                future.add_done_callback(lambda done: self._called_back(task, done))
            case _:
                self._ready.append((task, None, StrategyError(f"a strategy yields requests, not {request!r}")))

    # --- branches -----------------------------------------------------------------------------------------------------

    def _branch(self, task: Task, request: Gather | Race) -> None:
        name = type(request).__name__
        error = None if request.strategies else StrategyError(f"{name} needs at least one strategy")
        wrong: list[object] = [s for s in request.strategies if not isinstance(s, Generator)]
        if wrong:
            error = StrategyError(f"{name} runs generators such as complete(run.branch(0), …), not {wrong[0]!r}")
        if error is not None:
            self._ready.append((task, None, error))
            return
        kind = "gather" if isinstance(request, Gather) else "race"
        task.group = Group(kind, task, request.strategies)  # type: ignore[arg-type]
        self._ready.extend((child, None, None) for child in task.group.tasks)

    def _finished(self, task: Task, value: Any) -> None:
        group = task.parent
        if group is not None and group.kind == "race" and not hasattr(value, "length"):
            self._failed(task, StrategyError(f"a strategy in a Race returns something with a length, not {value!r}"))
            return
        if group is None and not is_output(value):
            error = StrategyError(f"a strategy returns an Output with at least one candidate, not {value!r}")
            self._failed(task, error)
            return
        task.closed = True
        if group is None:
            task.job.output = value
            self._end(task.job)
            return
        group.results[task.index] = value
        group.finished[task.index] = True
        self._check(group)

    def _check(self, group: Group) -> None:
        """Resume the owner once its branches have decided the outcome."""
        if group.kind == "race":
            for task in losers(group):
                self._close(task)
            if all(task.closed for task in group.tasks):
                self._return(group, winner(group))
        elif all(group.finished):
            self._return(group, group.results)

    def _return(self, group: Group, value: Any) -> None:
        group.owner.group = None
        self._ready.append((group.owner, value, None))

    def _failed(self, task: Task, failure: Exception) -> None:
        task.closed = True
        group = task.parent
        if group is None:
            task.job.error = failure
            self._end(task.job)
            return
        for sibling in group.tasks:
            self._close(sibling)
        group.owner.group = None
        self._ready.append((group.owner, None, failure))

    def _close(self, task: Task) -> None:
        """Close a task's generator and those of its branches, and forget what they waited for."""
        if task.group is not None:
            for child in task.group.tasks:
                self._close(child)
            task.group = None
        if task.closed:
            return
        task.closed = True
        for pendings in self._pending.values():
            pendings[:] = [pending for pending in pendings if pending.task is not task]
        self._scores = [entry for entry in self._scores if entry[0] is not task]
        try:
            task.generator.close()
        except Exception as failure:  # noqa: BLE001 - a fault in a strategy's cleanup is its job's, never the engine's
            task.job.error = task.job.error or failure

    def _end(self, job: Job) -> None:
        job.done = True
        job.stats.seconds["total"] = time.perf_counter() - job.submitted
        del self.jobs[job.number], self._roots[job.number]
        if job.output is not None:
            job.stats.emitted = sum(job.run.generated(c.node) for c in job.output.candidates)
            if job.output.candidates:
                self._remember(job)
        job.release()
        for instrument in tuple(self.instruments):  # one may leave the list when its run ends
            instrument.job_finished(job)
        if job.on_done is not None:
            job.on_done(job)

    def _remember(self, job: Job) -> None:
        """Keep the best candidate's rows for prompts that continue it. Its last token was never computed."""
        assert job.output is not None
        last = job.output.candidates[0].node.parent
        for runner in self.runners.values():
            if last is not None:
                runner.remember(last)

    # --- scores and calls ---------------------------------------------------------------------------------------------

    def _score(self) -> None:
        """Answer every `Score` that waits."""
        waiting, self._scores = self._scores, []
        for task, score, found in scored(waiting):
            if isinstance(found, Exception):
                self._ready.append((task, None, found))
                continue
            task.job.stats.scored += len(score.nodes)
            for instrument in self.instruments:
                instrument.scored(task.job, score.nodes, found)
            self._ready.append((task, found, None))

    def _collect_calls(self) -> None:
        """Take what worker threads have finished."""
        self._called.clear()
        while self._calling:
            try:
                task, future = self._calls.get_nowait()
            except queue.Empty:
                return
            self._calling -= 1
            error = future.exception()
            self._ready.append((task, None if error else future.result(), error))

    def _called_back(self, task: Task, future: Future[Any]) -> None:
        self._calls.put((task, future))
        self._called.set()

    # --- forwards -----------------------------------------------------------------------------------------------------

    def _await_forward(self, task: Task, request: Forward) -> None:
        error = refusal(request, self.runners)
        if error is not None:
            self._ready.append((task, None, error))
            return
        variant = variant_of(request, self.runners[request.model].decoder.shape.layers)
        self._pending[request.model].append(Pending(task, request, variant))
        if request.of_text:  # what drafts look at is no text yet
            task.progress = min(node.length for node in request.nodes)
            if task.parent is not None and task.parent.kind == "race":
                self._check(task.parent)

    def _forward(self, runner: ModelRunner, layers: Layers | None, pendings: list[Pending]) -> None:
        """Pack, compute, read, answer: one forward of one model, or of some of its layers."""
        began = time.perf_counter()
        packer = self._pack(runner, layers, pendings)
        if packer is None:
            return
        batch = packer.build()
        of_text = any(pending.request.of_text for pending in pendings)
        readings = readouts.of_batch(pendings, batch)
        wanted = readouts.boundaries(readings)
        masks = Masks(readings, runner.decoder.shape.vocab_size)  # computed while the model runs
        for instrument in self.instruments:
            instrument.before_forward(runner.name, batch.rows)
        planned = time.perf_counter()
        self._computing = True
        try:
            with one_thread(batch.rows, runner.one_thread_rows), torch.inference_mode():
                hidden, boundaries = runner.forward(batch, wanted)
                done = time.perf_counter()
                readouts.take(
                    readings,
                    hidden,
                    boundaries,
                    runner.decoder.logits,
                    lambda layer, row: runner.attention(layer, boundaries[layer], batch.plan, row),
                    runner.exit_logits,
                    masks,
                )
        except Exception as failure:  # noqa: BLE001 - whatever it was, the jobs outside this batch go on
            self._lost(runner, batch, packer.jobs, failure)
            return
        except BaseException:  # the user's interrupt: the rows count as computed no more
            batch.give_back()
            raise
        finally:
            self._computing = False
        self._answer(runner, readings)
        end = time.perf_counter()
        report = ForwardReport(
            runner.name, batch.rows, len(readings), len(packer.jobs), done - planned, end - done, planned - began
        )
        self._count(runner, batch, packer.jobs, report)
        # What drafts look at is part of drafting, also where it is the target that looks.
        seconds = report.forward_seconds + report.readout_seconds + report.plan_seconds
        read = len({reading.row for reading in readings})
        self.governor.forward(batch.rows, seconds, read=read, drafting=not of_text)

    def _lost(self, runner: ModelRunner, batch: Batch, jobs: set[Job], failure: Exception) -> None:
        """A forward failed: its rows were never computed, and the jobs in it are told."""
        batch.give_back()
        pendings = self._pending[runner.name]
        for pending in [pending for pending in pendings if pending.task.job in jobs]:
            pendings.remove(pending)
            self._ready.append((pending.task, None, failure))

    def _pack(self, runner: ModelRunner, layers: Layers | None, pendings: list[Pending]) -> Packer | None:
        """Short requests first, then long ones in order of arrival, until the budget of rows is spent."""
        packer = Packer(runner, self.budget, layers)
        if self.shuffle is not None:
            self.shuffle.shuffle(pendings)
        order = pendings if len(pendings) == 1 else sorted(pendings, key=is_long)
        for pending in order:
            if packer.left <= 0:
                break
            while True:
                try:
                    packer.add(pending)
                except OutOfSlots:
                    if runner.make_room() or self._preempt(packer, pending.task.job):
                        continue
                break
        if packer.jobs or packer.held_back:
            return packer if packer.jobs else None
        # Nothing fits although every younger job gave way: what still holds memory waits for something else.
        pending = min(pendings, key=lambda p: p.task.job.number)
        gave_way = self._preempt(packer, pending.task.job, any_age=True)
        if gave_way or (pending.variant.whole and pending.task.job.release(scratch_only=True)):
            return self._pack(runner, layers, pendings)
        self._pending[runner.name].remove(pending)
        error = DecodingError(
            f"KV memory of {runner.memory.slots} tokens is full with the branches of this run alone; "
            "use a narrower strategy or load with a larger kv_slots"
        )
        self._ready.append((pending.task, *pending.give_up(error)))
        return None

    def _preempt(self, packer: Packer, job: Job, *, any_age: bool = False) -> bool:
        """Drop the rows of the youngest other job that is not in this batch; False if there is none.

        Only jobs younger than `job` give way, so that two jobs never preempt each other in turn.
        """
        others = [o for o in self.jobs.values() if o is not job and o not in packer.jobs and o.handles]
        victims = [o for o in others if any_age or o.number > job.number]
        if not victims:
            return False
        victim = max(victims, key=lambda other: other.number)
        victim.release()
        victim.stats.preemptions += 1
        for instrument in self.instruments:
            instrument.preempted(victim)
        return True

    def _answer(self, runner: ModelRunner, readings: list[Reading]) -> None:
        """Hand readouts to their requests; those with nothing missing are runnable again."""
        failed: dict[int, tuple[Pending, Exception]] = {}
        for reading in readings:
            pending = reading.pending
            if reading.error is not None:
                if pending.request.may_fail:
                    pending.fail(reading.index, reading.error)
                else:
                    failed[id(pending)] = (pending, reading.error)
                continue
            if reading.index in pending.failures:
                continue
            if reading.place == 0:
                pending.results[reading.index] = ()
                pending.missing.discard(reading.index)
            pending.results[reading.index] += (reading.result,)  # type: ignore[operator]
            if isinstance(reading.want, Argmax | Sample):
                pending.task.job.stats.generated += 1
            for instrument in self.instruments:
                instrument.read(pending.task.job, reading.node, reading.want, reading.result, runner.name)
        waiting = self._pending[runner.name]
        for pending, error in failed.values():
            waiting.remove(pending)
            self._ready.append((pending.task, None, error))
        done = [pending for pending in waiting if not pending.missing]
        if done:
            waiting[:] = [pending for pending in waiting if pending.missing]
            self._ready.extend((pending.task, pending.answer(), None) for pending in done)

    def _count(self, runner: ModelRunner, batch: Batch, jobs: set[Job], report: ForwardReport) -> None:
        prefilling: set[Job] = set()
        for entry in batch.entries:
            stats = entry.job.stats
            stats.rows += entry.count
            if entry.node.parent is None and entry.node is entry.job.run.tip and entry.variant.whole:
                stats.prompt_rows += entry.count
                prefilling.add(entry.job)
                if entry.complete and runner.prefix is not None:
                    runner.remember(entry.node)
            for instrument in self.instruments:
                instrument.computed(entry.job, (entry.node,), runner.name)
        whole = {entry.job for entry in batch.entries if entry.variant.whole}
        for job in jobs:
            if runner.name == "target" and job in whole:
                job.stats.forwards += 1
            if job.started is None:
                job.started = time.perf_counter() - report.forward_seconds - report.readout_seconds
                job.stats.seconds["queue"] = job.started - job.submitted
            job.stats.seconds["prefill" if job in prefilling else "decode"] += report.forward_seconds
            job.stats.seconds["readout"] += report.readout_seconds
        for instrument in self.instruments:
            instrument.after_forward(report)
