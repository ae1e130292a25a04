"""CPU kernels for few rows: linear layers that read weights at the speed of the memory, compiled by numba on first use.

`linear` has the operations, `dispatch` says when they are worth using, `team` runs them on several threads,
`intrinsics` and `elementwise` are their parts, `logits` reduces rows of logits. The specification is the plain torch
composition in `treille.models`.
"""
