"""Decoding strategies, one file each; importing this package registers them.

`beam` here is the factory: `beam(width=4)` is a strategy with its parameters, `beam.function` its generator function.
"""

from treille.strategies.beam import beam
from treille.strategies.best_of_n import best_of_n
from treille.strategies.diverse_beam import diverse_beam
from treille.strategies.first_finish import first_finish
from treille.strategies.greedy import greedy
from treille.strategies.lossy_layer_skip import lossy_layer_skip
from treille.strategies.sample import sample
from treille.strategies.self_consistency import self_consistency

__all__ = [
    "beam",
    "best_of_n",
    "diverse_beam",
    "first_finish",
    "greedy",
    "lossy_layer_skip",
    "sample",
    "self_consistency",
]
