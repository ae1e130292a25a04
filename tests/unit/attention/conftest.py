"""These tests run thousands of tiny torch operations, which more torch threads would only slow down."""

import pytest
import torch

from treille.attention import few_rows
from treille.kernels.team import shared_team


@pytest.fixture(autouse=True, scope="module")
def _one_torch_thread():
    """Torch uses one thread; the kernels keep the team of all of them."""
    team, threads = shared_team(), torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(few_rows, "shared_team", lambda: team)
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)
