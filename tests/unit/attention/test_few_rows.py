"""The fused kernel for few rows: norm, rotation, writing to the pool, attention."""

import numpy as np
import pytest
import torch
from forests import SLOTS, forest

from treille.attention import reference
from treille.attention.few_rows import FewRowsAttention
from treille.attention.plan import AttentionPlan, Block, Piece
from treille.errors import ParameterError
from treille.kernels import attention as kernel


def normalised(x, weight, eps, offset):
    """RMS norm over the last dimension."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * (weight + offset)


def rotated(x, cos, sin):
    """Dimensions i and i + N rotated as pairs, the rest kept."""
    pairs = cos.shape[1]
    a, b, rest = x[..., :pairs], x[..., pairs : 2 * pairs], x[..., 2 * pairs :]
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("pairs", "norm"), [(0, False), (20, True), (6, True), (20, False)])
def test_the_fused_call_is_its_parts(dtype, pairs, norm):
    """The call equals norm, rotation, a rounding write to the pool at the rows' slots, and the reference."""
    heads, kv_heads, width = 6, 2, 40
    plan = forest(3)
    rows = plan.row_count
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(rows, (heads + 2 * kv_heads) * width, generator=generator)
    keys, values = torch.randn(2, kv_heads, SLOTS, width, generator=generator).to(dtype)
    q_norm, k_norm = torch.randn(2, width, generator=generator).to(dtype) if norm else (None, None)
    angles = torch.randn(rows, pairs, generator=generator)
    cos, sin = (angles.cos(), angles.sin()) if pairs else (None, None)

    q, k, v = (x.unflatten(1, (-1, width)) for x in qkv.split([heads * width, kv_heads * width, kv_heads * width], 1))
    if norm:
        q, k = normalised(q, q_norm.float(), 1e-5, 1.0), normalised(k, k_norm.float(), 1e-5, 1.0)
    if pairs:
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
    expected_keys, expected_values = keys.clone(), values.clone()
    expected_keys[:, plan.slots] = k.transpose(0, 1).to(dtype)
    expected_values[:, plan.slots] = v.transpose(0, 1).to(dtype)
    expected = reference.attend(q, k, v, expected_keys, expected_values, plan, scale=0.3, window=None, softcap=None)

    layer = FewRowsAttention(
        heads=heads, kv_heads=kv_heads, width=width, scale=0.3, q_norm=q_norm, k_norm=k_norm, eps=1e-5, offset=1.0
    )
    result = layer(qkv, cos, sin, keys, values, plan)
    # A key may round the other way where its float32 differs in the last bit.
    torch.testing.assert_close(keys, expected_keys, atol=1e-6, rtol=torch.finfo(dtype).eps)
    torch.testing.assert_close(values, expected_values, atol=0, rtol=0)
    tolerance = 1e-5 if dtype == torch.float32 else 5e-3
    torch.testing.assert_close(result, expected.flatten(1), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [6, 16, 44, 72])
def test_one_row_at_a_time_is_one_pass(dtype, width):
    """Rows computed one by one, each reading the others from the pool, get what one block of them gets."""
    rows, heads, kv_heads = 41, 4, 2
    generator = torch.Generator().manual_seed(1)
    qkv = torch.randn(rows, (heads + 2 * kv_heads) * width, generator=generator)
    layer = FewRowsAttention(heads=heads, kv_heads=kv_heads, width=width, scale=0.25)
    keys, values = torch.full((2, kv_heads, rows, width), torch.nan, dtype=dtype)
    at = torch.arange(rows)
    whole = layer(qkv, None, None, keys, values, AttentionPlan(at, at, (), (Block(0, rows, None),)))
    keys.fill_(torch.nan)
    values.fill_(torch.nan)
    for row in range(rows):
        pieces = (Piece(0, row, 0, range(1)),) if row else ()
        plan = AttentionPlan(at[row : row + 1].clone(), at[row : row + 1].clone(), pieces, (Block(0, 1, None),))
        single = layer(qkv[row : row + 1], None, None, keys, values, plan)
        torch.testing.assert_close(single[0], whole[row], atol=1e-6, rtol=1e-5)


def test_half_types_convert_as_torch_does():
    """Every float16 is read, and floats of all sizes are rounded to bfloat16 and float16, as torch does it."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    exact = bits.view(np.float16).astype(np.float32)
    assert np.array_equal([kernel._widen(b, True) for b in bits], exact, equal_nan=True)
    generator = np.random.default_rng(0)
    values = generator.standard_normal(20_000) * 10.0 ** generator.integers(-9, 6, 20_000)
    finite = exact[np.isfinite(exact)]
    ties = (finite[:-1] + finite[1:]) / 2
    values = np.concatenate([values, ties, [0.0, -0.0, np.inf, -np.inf, np.nan, 65519.0, 65520.0]]).astype(np.float32)
    for dtype, half in ((torch.float16, True), (torch.bfloat16, False)):
        expected = torch.from_numpy(values).to(dtype)
        result = torch.from_numpy(np.array([kernel._narrow(x, half) for x in values], np.uint16)).view(dtype)
        assert torch.equal(result.isnan(), expected.isnan())
        assert torch.equal(result[~result.isnan()], expected[~expected.isnan()])


def test_what_the_kernel_cannot_read_is_refused():
    """Shapes, dtypes and layouts that the kernel does not read are refused, by name."""
    with pytest.raises(ParameterError, match="heads=4 is not a multiple of kv_heads=3"):
        FewRowsAttention(heads=4, kv_heads=3, width=8, scale=1.0)
    with pytest.raises(ParameterError, match="q_norm has shape"):
        FewRowsAttention(heads=4, kv_heads=2, width=8, scale=1.0, q_norm=torch.ones(32))
    layer = FewRowsAttention(heads=4, kv_heads=2, width=8, scale=1.0)
    plan = AttentionPlan(torch.arange(1), torch.arange(1), (), (Block(0, 1, None),))
    qkv, pool, table = torch.zeros(1, 64), torch.zeros(2, 5, 8), torch.zeros(1, 4)
    for arguments, name in (
        ((qkv.double(), None, None, pool, pool), "qkv"),
        ((torch.zeros(1, 63), None, None, pool, pool), "qkv"),
        ((qkv, None, None, pool.double(), pool.double()), "pool"),
        ((qkv, None, None, pool, pool.half()), "pool"),
        ((qkv, None, None, torch.zeros(2, 8, 5).transpose(1, 2), pool), "pool"),
        ((qkv, table, None, pool, pool), "cos and sin"),
        ((qkv, torch.zeros(1, 5), torch.zeros(1, 5), pool, pool), "rotary"),
    ):
        with pytest.raises(ParameterError, match=name):
            layer(*arguments, plan)
