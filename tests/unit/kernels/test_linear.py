"""The CPU kernels equal the plain torch composition, row by row and to the bit in every batch."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from treille.errors import ParameterError
from treille.kernels.dispatch import DTYPES, memory_bandwidth, most_rows
from treille.kernels.linear import ACTIVATIONS, Gate, PackedLinear, PackedNorm, Project, Residual
from treille.kernels.team import Team, shared_team

EPS = 1e-5
ROWS = (1, 2, 3, 4, 5, 7, 8, 13, 16, 31, 32, 33)
SIZES = ((1, 1), (5, 3), (13, 8), (96, 64), (61, 579), (40, 1537))  # N, K
ACTS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@dataclass(frozen=True)
class NormCase:
    """A norm as packed for the kernels, and the same in float64."""

    packed: PackedNorm | None
    exact: Callable[[Tensor], Tensor]


def norm_case(kind: str, size: int) -> NormCase:
    """The norm called `kind` with random weights of `size`."""
    weight, bias = torch.randn(size), torch.randn(size)
    w, b = weight.double(), bias.double()
    match kind:
        case "none":
            return NormCase(None, lambda x: x)
        case "rms":
            packed = PackedNorm.of("rms", weight, None, EPS)
            return NormCase(packed, lambda x: F.rms_norm(x, (size,), w, EPS))
        case "rms+1":
            packed = PackedNorm.of("rms", weight, None, EPS, offset=1.0)
            return NormCase(packed, lambda x: F.rms_norm(x, (size,), w + 1, EPS))
        case _:
            packed = PackedNorm.of("layer", weight, bias, EPS)
            return NormCase(packed, lambda x: F.layer_norm(x, (size,), w, b, EPS))


def linear_case(outputs: int, inputs: int, dtype: torch.dtype, *, bias: bool) -> PackedLinear:
    """A random linear layer whose outputs are of order one."""
    weight = (torch.randn(outputs, inputs) / inputs**0.5).to(dtype)
    return PackedLinear.of(weight, torch.randn(outputs).to(dtype) if bias else None)


def exact_linear(x: Tensor, linear: PackedLinear) -> Tensor:
    """The product in float64."""
    return F.linear(x, linear.weight.double(), None if linear.bias is None else linear.bias.double())


def assert_equal(got: Tensor, want: Tensor) -> None:
    """Within 1e-5 of the largest value, as float32."""
    assert got.dtype == torch.float32
    assert got.shape == want.shape
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5 * (1 + float(want.abs().max())))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_project_is_the_product(dtype, size):
    """`Project` is `x W^T + b` within 1e-5 for sizes that are no multiple of a tile and for every block of rows."""
    for bias in (False, True):
        linear = linear_case(*size, dtype, bias=bias)
        project = Project(linear)
        for rows in ROWS:
            x = torch.randn(rows, size[1])
            assert_equal(project(x), exact_linear(x.double(), linear))


@pytest.mark.parametrize("kind", ["rms", "rms+1", "layer"])
@pytest.mark.parametrize("rows", [1, 5, 32])
def test_project_norms_its_rows_first(kind, rows):
    """A fused norm is the norm of each row in float32 before the product, and leaves the input alone."""
    norm = norm_case(kind, 579)
    linear = linear_case(50, 579, torch.bfloat16, bias=True)
    x = torch.randn(rows, 579)
    before = x.clone()
    assert_equal(Project(linear, norm.packed)(x), exact_linear(norm.exact(x.double()), linear))
    assert torch.equal(x, before)


@pytest.mark.parametrize("kind", ["none", "rms", "rms+1", "layer"])
@pytest.mark.parametrize("rows", [1, 5, 32])
def test_residual_adds_the_scaled_normed_product(kind, rows):
    """`Residual` is `x + multiplier * norm(linear(h))` in a new tensor."""
    norm = norm_case(kind, 203)
    for dtype, multiplier in ((torch.bfloat16, 1.0), (torch.float32, 0.22), (torch.float16, -3)):
        linear = linear_case(203, 77, dtype, bias=multiplier != 1.0)
        h, x = torch.randn(rows, 77), torch.randn(rows, 203)
        before = x.clone()
        want = x.double() + multiplier * norm.exact(exact_linear(h.double(), linear))
        assert_equal(Residual(linear, norm.packed)(h, x, multiplier), want)
        assert torch.equal(x, before)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_gate_activates_and_multiplies(activation, gated, bias):
    """`Gate` is `act(gate) * up`, or `act(linear)` when not gated, over several chunks of features."""
    norm = norm_case("rms", 600)
    linear = linear_case(2 * 151, 600, torch.bfloat16, bias=bias)
    gate = Gate(linear, norm.packed, activation, gated=gated)
    for rows in (1, 3, 9):
        x = 4 * torch.randn(rows, 600)
        y = exact_linear(norm.exact(x.double()), linear)
        want = ACTS[activation](y[:, :151]) * y[:, 151:] if gated else ACTS[activation](y)
        assert_equal(gate(x), want)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_activations_hold_far_from_zero(activation):
    """An activation equals torch's for inputs from -1e4 to 1e4; the clamped exponential overflows nowhere."""
    x = torch.cat([torch.linspace(-30, 30, 4001), torch.tensor([-1e4, -200.0, -88.5, 88.5, 200.0, 1e4])])[:, None]
    gate = Gate(PackedLinear.of(torch.ones(1, 1)), None, activation, gated=False)
    torch.testing.assert_close(gate(x), ACTS[activation](x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_is_the_same_to_the_bit_in_every_batch(dtype):
    """Batch invariance: a row's result has the same bits alone as among 2 to 33 rows, whatever its place."""
    norm = norm_case("rms", 579).packed
    operations = (
        Project(linear_case(101, 579, dtype, bias=True), norm),
        Gate(linear_case(202, 579, dtype, bias=True), norm, "silu", gated=True),
    )
    x = torch.randn(33, 579)
    for operation in operations:
        alone = torch.cat([operation(x[r : r + 1]) for r in range(33)])
        for rows in (2, 3, 4, 5, 8, 16, 32, 33):
            assert torch.equal(operation(x[:rows]), alone[:rows])
            assert torch.equal(operation(x[33 - rows :]), alone[33 - rows :])


def test_the_number_of_threads_does_not_change_a_bit():
    """One thread and two give the same bits: chunks are divided among threads, sums are not."""
    linear = linear_case(3000, 579, torch.bfloat16, bias=False)
    x = torch.randn(5, 579)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            project = Project(linear)
            results.append([project(x) for _ in range(20)])  # the helpers join from the second call on
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(y, results[0][0]) for ys in results for y in ys)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_poison_stays_in_its_row(poison):
    """NaN or infinity in one row makes that row's every output NaN or infinite, and touches no other row."""
    norm = norm_case("rms", 67)
    linear, out = linear_case(2 * 30, 67, torch.bfloat16, bias=True), linear_case(67, 30, torch.float32, bias=False)
    gate, residual = Gate(linear, norm.packed, "silu", gated=True), Residual(out, norm.packed)
    x = torch.randn(6, 67)
    clean = residual(gate(x), x)
    x[2, 11] = poison
    got = residual(gate(x), x)
    rest = [0, 1, 3, 4, 5]
    assert torch.equal(got[rest], clean[rest])
    assert not got[2].isfinite().any()


def test_threads_may_share_a_layer():
    """Calls from several threads at once are served one after another and are all right."""
    linear = linear_case(400, 96, torch.bfloat16, bias=True)
    project = Project(linear)
    inputs = [torch.randn(3, 96) for _ in range(4)]
    want = [project(x) for x in inputs]
    wrong: list[int] = []

    def work(i: int) -> None:
        wrong.extend(i for _ in range(50) if not torch.equal(project(inputs[i]), want[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_no_rows_give_no_rows():
    """An empty call returns an empty result."""
    assert Project(linear_case(7, 9, torch.bfloat16, bias=True))(torch.empty(0, 9)).shape == (0, 7)


FORK = """
import os, torch
from treille.kernels.linear import PackedLinear, Project
torch.set_num_threads(2)
project = Project(PackedLinear.of(torch.randn(400, 96)))
x = torch.randn(3, 96)
want = [project(x) for _ in range(5)][-1]
child = os.fork()
if child == 0:
    os._exit(0 if all(torch.equal(project(x), want) for _ in range(5)) else 1)
assert os.waitpid(child, 0)[1] == 0
assert torch.equal(project(x), want)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_forked_child_has_its_own_helpers():
    """A layer made before a fork gives the same bits in parent and child."""
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=120)


def test_a_closed_team_still_computes():
    """Helpers cost speed, never results: after `close` the calling thread does all the work."""
    team = shared_team()
    project = Project(linear_case(400, 96, torch.float32, bias=False))
    x = torch.randn(3, 96)
    want = project(x)
    alone = Team(2)
    alone.ring(0)
    alone.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(project.job, "_team", alone)
        assert torch.equal(project(x), want)
    assert project.job._team is team


def test_refusals_name_value_and_way_out():
    """A weight, norm or activation the kernels cannot take is refused with the value and the way out."""
    with pytest.raises(ParameterError, match=r"float64.*use the torch operations"):
        PackedLinear.of(torch.zeros(3, 3, dtype=torch.float64))
    with pytest.raises(ParameterError, match="strides"):
        PackedLinear.of(torch.zeros(3, 4).T)
    with pytest.raises(ParameterError, match="'group'"):
        PackedNorm.of("group", torch.ones(3), None, EPS)
    with pytest.raises(ParameterError, match="'swish'"):
        Gate(PackedLinear.of(torch.zeros(4, 4)), None, "swish", gated=True)
    with pytest.raises(ParameterError, match="3 rows"):
        Gate(PackedLinear.of(torch.zeros(3, 4)), None, "silu", gated=True)


def test_dispatch_serves_small_row_counts():
    """The kernels are chosen at least up to 32 rows for their three dtypes, and never for others."""
    assert all(most_rows(dtype) >= 32 for dtype in DTYPES)
    assert most_rows(torch.float64) == 0
    assert memory_bandwidth(16, 2) > 0.1
