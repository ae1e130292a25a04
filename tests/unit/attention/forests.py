"""Random forests of requests over a pool, and the inputs of one forward over them."""

import random
from dataclasses import dataclass

import torch

from treille.attention import reference
from treille.attention.plan import AttentionPlan, Block, Piece

SLOTS = 900


@dataclass(frozen=True)
class Case:
    """Inputs of one forward."""

    plan: AttentionPlan
    tensors: tuple[torch.Tensor, ...]  # q, k, v, keys, values
    options: dict[str, float | int | None]

    def run(self, attend):
        """What an implementation makes of the inputs."""
        return attend(*self.tensors, self.plan, **self.options)


class Forest:
    """Random requests over a pool: shared prefixes, forks, and runs that lie anywhere."""

    def __init__(self, seed: int, slots: int) -> None:
        self.random = random.Random(seed)
        self.slots, self.used = slots, set()
        self.pieces: list[list] = []  # [start, stop, position, rows]
        self.positions: list[int] = []
        self.row_slots: list[int] = []
        self.blocks: list[Block] = []

    def place(self, length: int) -> int | None:
        """The start of a free run of slots, at random."""
        starts, run = [], 0
        for slot in range(self.slots):
            run = 0 if slot in self.used else run + 1
            if run >= length:
                starts.append(slot - length + 1)
        if not starts:
            return None
        start = self.random.choice(starts)
        self.used |= set(range(start, start + length))
        return start

    def grow(self, path: list[list], lengths: list[int]) -> list[list]:
        """The path with further pieces."""
        path = list(path)
        for length in lengths:
            start = self.place(length)
            if start is not None:
                position = path[-1][2] + path[-1][1] - path[-1][0] if path else 0
                path.append([start, start + length, position, []])
                self.pieces.append(path[-1])
        return path

    def compute(self, path: list[list], parents: list[int] | None, size: int) -> None:
        """One block of rows under a path; their slots are scattered."""
        base = path[-1][2] + path[-1][1] - path[-1][0] if path else 0
        free = [s for s in range(self.slots) if s not in self.used]
        slots = self.random.sample(free, size)
        self.used |= set(slots)
        begin = len(self.positions)
        for index in range(size):
            parent = index - 1 if parents is None else parents[index]
            self.positions.append(base if parent < 0 else self.positions[begin + parent] + 1)
        self.row_slots += slots
        for piece in path:
            piece[3] += range(begin, begin + size)
        self.blocks.append(Block(begin, begin + size, None if parents is None else tuple(parents)))

    def plan(self) -> AttentionPlan:
        """The plan of all blocks so far; pieces in any order."""
        pieces = [p for p in self.pieces if p[3]]
        self.random.shuffle(pieces)
        return AttentionPlan(
            torch.tensor(self.positions),
            torch.tensor(self.row_slots),
            tuple(Piece(a, b, position, tuple(rows)) for a, b, position, rows in pieces),
            tuple(self.blocks),
        )


def forest(seed: int) -> AttentionPlan:
    """A few requests: some fork from a shared prefix; chains, trees, single rows; one may have no piece at all."""
    made = Forest(seed, slots=SLOTS)
    draw = made.random
    shared = made.grow([], draw.choice([[], [1], [7, 30], [300], [64, 3, 270]]))
    for _ in range(draw.randint(1, 5)):
        trunk = shared if draw.random() < 0.7 else []
        path = made.grow(trunk, [draw.choice([1, 2, 5, 63, 64, 65]) for _ in range(draw.randint(0, 3))])
        size = draw.choice([1, 1, 2, 5, 17])
        tree = [draw.randint(-1, i - 1) for i in range(size)] if draw.random() < 0.5 else None
        made.compute(path, tree, size)
    return made.plan()


def case(
    plan: AttentionPlan,
    seed: int,
    heads: tuple[int, int, int],
    dtype: torch.dtype = torch.float32,
    window: int | None = None,
    softcap: float | None = None,
) -> Case:
    """Random tensors for the plan; every slot that no row sees or writes is poisoned."""
    q_heads, kv_heads, width = heads
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, kv_heads, SLOTS, width, generator=generator).to(dtype)
    q = torch.randn(plan.row_count, q_heads, width, generator=generator).to(dtype)
    seen = {slot for row in range(plan.row_count) for slot in reference.visible(plan, row, window)}
    hidden = [slot for slot in range(SLOTS) if slot not in seen]
    keys[:, hidden] = values[:, hidden] = torch.nan
    k, v = (pool[:, plan.slots].transpose(0, 1).contiguous() for pool in (keys, values))
    options = {"scale": width**-0.5, "window": window, "softcap": softcap}
    return Case(plan, (q, k, v, keys, values), options)
