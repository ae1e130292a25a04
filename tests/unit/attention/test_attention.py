"""All attention implementations are one function: that of `treille.attention.reference`."""

from dataclasses import replace

import pytest
import torch
from forests import SLOTS, Case, case, forest
from hypothesis import given, settings
from hypothesis import strategies as st

from treille.attention import few_rows, merged, reference
from treille.attention.plan import AttentionPlan, Block, Piece, check
from treille.errors import InternalError

FAST = {"merged": merged.attend, "few_rows": few_rows.attend}
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
HEADS = [(1, 1, 8), (4, 4, 40), (6, 2, 64), (9, 3, 64), (5, 1, 80), (4, 2, 7)]


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 10**6),
    heads=st.sampled_from(HEADS),
    dtype=st.sampled_from([torch.float32, torch.float32, torch.bfloat16, torch.float16]),
    window=st.sampled_from([None, None, 1, 3, 64, 200]),
    softcap=st.sampled_from([None, None, 5.0]),
)
def test_every_implementation_is_the_reference(seed, heads, dtype, window, softcap):
    """On any forest every implementation gives the reference's result, and no slot outside the context is read."""
    plan = forest(seed)
    check(plan, slot_count=SLOTS)
    inputs = case(plan, seed, heads, dtype, window, softcap)
    before = [tensor.clone() for tensor in inputs.tensors]
    expected = inputs.run(reference.attend)
    assert expected.isfinite().all()
    for name, attend in FAST.items():
        result = inputs.run(attend)
        assert result.dtype == dtype
        torch.testing.assert_close(
            result,
            expected,
            atol=TOLERANCE[dtype],
            rtol=TOLERANCE[dtype],
            msg=lambda text, name=name: f"{name}: {text}",
        )
    torch.testing.assert_close(list(inputs.tensors), before, rtol=0, atol=0, equal_nan=True)


def test_the_reference_is_torch_attention():
    """For one causal block the reference is torch's own attention."""
    plan = AttentionPlan(torch.arange(20), torch.arange(20), (), (Block(0, 20, None),))
    inputs = case(plan, 0, (6, 2, 16))
    q, k, v, *_ = inputs.tensors
    heads = [x.transpose(0, 1).unsqueeze(0) for x in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*heads, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(inputs.run(reference.attend), expected[0].transpose(0, 1))


@pytest.mark.parametrize(("window", "softcap"), [(None, None), (None, 3.0), (130, None), (1000, None)])
@pytest.mark.parametrize("before", [0, 70])
def test_long_chains_are_tiled(window, softcap, before):
    """A chain longer than a tile, with and without context before it, gets the reference's result."""
    rows = merged.QUERY_TILE + 44
    pieces = (Piece(0, before, 0, range(rows)),) if before else ()
    plan = AttentionPlan(
        torch.arange(before, before + rows), torch.arange(before, before + rows), pieces, (Block(0, rows, None),)
    )
    inputs = case(plan, 1, (2, 1, 16), window=window, softcap=softcap)
    expected = inputs.run(reference.attend)
    for attend in FAST.values():
        torch.testing.assert_close(inputs.run(attend), expected, atol=1e-5, rtol=1e-5)


def test_small_tiles_change_nothing(monkeypatch):
    """The tiles of pieces and chains are a matter of memory only."""
    monkeypatch.setattr(merged, "QUERY_TILE", 3)
    monkeypatch.setattr(merged, "KEY_TILE", 5)
    for seed in range(12):
        inputs = case(forest(seed), seed, (4, 2, 8), window=[None, 6, 100][seed % 3])
        torch.testing.assert_close(
            inputs.run(merged.attend), inputs.run(reference.attend), atol=1e-5, rtol=1e-5, msg=str(seed)
        )


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("where", ["keys", "values"])
def test_a_poisoned_slot_shows(name, where):
    """NaN in one visible slot reaches exactly the rows that see the slot."""
    for seed in range(8):
        inputs = case(forest(seed), seed, (4, 2, 16))
        if not inputs.plan.pieces:
            continue
        piece = inputs.plan.pieces[0]
        inputs.tensors[3 if where == "keys" else 4][:, piece.stop - 1] = torch.nan
        poisoned = inputs.run(FAST[name]).isnan().flatten(1)
        seen = torch.zeros(inputs.plan.row_count, dtype=torch.bool)
        seen[list(piece.rows)] = True
        assert torch.equal(poisoned.all(1), seen)
        assert torch.equal(poisoned.any(1), seen)


def alone(inputs: Case, block: Block) -> Case:
    """The forward of one block without the others."""
    mine = slice(block.begin, block.end)
    plan = inputs.plan
    pieces = tuple(
        replace(piece, rows=tuple(row - block.begin for row in piece.rows if block.begin <= row < block.end))
        for piece in plan.pieces
    )
    single = AttentionPlan(
        plan.positions[mine].clone(),
        plan.slots[mine].clone(),
        tuple(piece for piece in pieces if piece.rows),
        (replace(block, begin=0, end=block.end - block.begin),),
    )
    q, k, v, keys, values = inputs.tensors
    return Case(single, (q[mine], k[mine], v[mine], keys, values), inputs.options)


@pytest.mark.parametrize("window", [None, 70])
def test_few_rows_do_not_depend_on_batch_mates(window):
    """With the kernel for few rows a request's result is bitwise the same alone and in a batch."""
    for seed in range(12):
        inputs = case(forest(seed), seed, (6, 2, 40), torch.bfloat16, window=window)
        together = inputs.run(few_rows.attend)
        for block in inputs.plan.blocks:
            result = alone(inputs, block).run(few_rows.attend)
            assert torch.equal(result, together[block.begin : block.end])


def test_derived_values_are_computed_once():
    """What layers share is built by the first that asks."""
    plan = forest(0)
    calls = []
    for _ in range(3):
        assert plan.derive("key", lambda: calls.append(0) or "value") == "value"
    assert calls == [0]


def plan_of(positions, slots, pieces, blocks) -> AttentionPlan:
    """A plan from plain lists."""
    return AttentionPlan(torch.tensor(positions), torch.tensor(slots), tuple(pieces), tuple(blocks))


CHAIN = Block(0, 2, None)


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (plan_of([2, 3], [5, 5], [Piece(0, 2, 0, (0, 1))], [CHAIN]), "same slot"),
        (plan_of([2, 3], [5, 9], [Piece(0, 2, 0, (0, 1))], [CHAIN]), "outside the pool"),
        (plan_of([2, 3], [5, 6], [Piece(0, 2, 0, (0, 2))], [CHAIN]), "beyond"),
        (plan_of([2, 3], [5, 6], [Piece(0, 2, 0, (0, 0, 1))], [CHAIN]), "twice"),
        (plan_of([2, 3], [1, 6], [Piece(0, 2, 0, (0, 1))], [CHAIN]), "read and written"),
        (plan_of([2, 3], [5, 6], [Piece(0, 0, 0, (0, 1))], [CHAIN]), "empty"),
        (plan_of([2, 3], [5, 6], [Piece(0, 2, 0, (0,))], [CHAIN]), "row 1 sees the positions"),
        (plan_of([2, 3], [5, 6], [Piece(0, 2, 1, (0, 1))], [CHAIN]), "row 0 sees the positions .*but should see"),
        (plan_of([3, 4], [5, 6], [Piece(0, 2, 0, (0, 1))], [CHAIN]), "row 0 sees the positions"),
        (plan_of([2, 4], [5, 6], [Piece(0, 2, 0, (0, 1))], [CHAIN]), "one position after its parent"),
        (plan_of([2, 3], [5, 6], [Piece(0, 2, 0, (0, 1))], [Block(0, 2, (1, -1))]), "has parent 1"),
        (plan_of([2, 3], [5, 6], [Piece(0, 2, 0, (0, 1))], [Block(0, 1, None), Block(0, 2, None)]), "partition"),
        (plan_of([2, 3, 4], [5, 6, 7], [Piece(0, 2, 0, (0, 1))], [CHAIN]), "3 positions"),
    ],
)
def test_a_broken_plan_is_named(plan, reason):
    """`check` refuses what breaks the contract, and says where."""
    with pytest.raises(InternalError, match=reason):
        check(plan, slot_count=8)
