"""An event loop as the driver: the engine is stepped in a thread; its runs are awaited and cancelled."""

import asyncio
import threading

import tiny

from treille.requests import Argmax, Call, Forward
from treille.strategies import beam, best_of_n, greedy, sample
from treille.strategy import Configured, Output, StrategyInfo, complete

MODEL = tiny.decoder()


def adhoc(function):
    """A generator function as an unregistered strategy."""
    return Configured(StrategyInfo(function.__name__, function, "", "", "", do_sample=False), {}, {})


def endless(run):
    """Reads the same node for ever."""
    while True:
        yield Forward([run.tip], Argmax())


class Server:
    """The least that serves: one task that steps while there is work, a future per run, a lock around the engine."""

    def __init__(self):
        self.engine = tiny.engine(MODEL)
        self.lock = asyncio.Lock()
        self.work = asyncio.Event()
        self.stepping = asyncio.create_task(self.drive())

    async def drive(self):
        """Step in a worker thread; the loop stays free."""
        while True:
            await self.work.wait()
            await asyncio.to_thread(self.engine.wait, 0.01)
            async with self.lock:
                await asyncio.to_thread(self.engine.step)
                if not self.engine.jobs:
                    self.work.clear()

    async def decode(self, strategy, prompt, **more):
        """The output of one run; cancelling the awaiting task closes the run."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        async with self.lock:
            job = tiny.submit(self.engine, strategy, prompt, **more)
            job.on_done = lambda _: loop.call_soon_threadsafe(done.set)
            self.work.set()
        try:
            await done.wait()
        finally:
            async with self.lock:
                self.engine.cancel(job)
        return job.result()


def test_runs_are_awaited_side_by_side_and_cancelled():
    """Awaited runs give what they give alone; a cancelled one is closed, and its rows are free."""

    async def main():
        server = Server()
        strategies = [greedy(), sample(), beam(width=3), best_of_n(n=2)]
        tasks = [asyncio.create_task(server.decode(s, [i, 2, 3])) for i, s in enumerate(strategies)]
        cancelled = asyncio.create_task(server.decode(adhoc(endless), [9] * 30))
        await asyncio.sleep(0.02)
        cancelled.cancel()
        outputs = await asyncio.gather(*tasks)
        await asyncio.gather(cancelled, return_exceptions=True)
        server.stepping.cancel()
        assert cancelled.cancelled()
        assert not server.engine.jobs
        accounts = server.engine.runners["target"].store.accounts()
        return strategies, outputs, accounts

    strategies, outputs, accounts = asyncio.run(main())
    for i, (strategy, output) in enumerate(zip(strategies, outputs, strict=True)):
        alone = tiny.engine(MODEL)
        expected = alone.run([tiny.submit(alone, strategy, [i, 2, 3])])[0]
        assert tiny.texts(output, 3) == tiny.texts(expected, 3)
    assert accounts.protected == 0
    assert accounts.free == accounts.total


def test_a_step_never_waits_for_a_call():
    """With nothing but an unfinished call, `step` returns at once and `wait` after its time; both go on afterwards."""
    gate = threading.Event()

    def asks(run):
        yield Call(gate.wait, 10)
        return Output(((yield from complete(run, run.start)),))

    engine = tiny.engine(MODEL)
    job = tiny.submit(engine, adhoc(asks), [1, 2, 3])
    for _ in range(3):
        engine.step()
        engine.wait(0.01)
    assert not job.done
    gate.set()
    output = engine.run([job])[0]
    assert tiny.texts(output, 3) == [tiny.plain_greedy(MODEL, [1, 2, 3])]
