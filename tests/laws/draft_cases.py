"""Every drafter, small enough for tables of three tokens: what `test_draft_law` enumerates. One entry per drafter."""

CASES: dict[str, list[str]] = {
    "draft_model": ["draft_model:k=2"],
    "prompt_lookup": ["prompt_lookup:k=3,n_max=2", "prompt_lookup:k=2,n_max=1,pick=earliest"],
}
