"""Every drafter, small enough for tables of three tokens: what `test_draft_law` enumerates. One entry per drafter."""

CASES: dict[str, list[str]] = {
    "prompt_lookup": ["prompt_lookup:k=3,n_max=2", "prompt_lookup:k=2,n_max=1,pick=earliest"],
    "draft_model": ["draft_model:k=2", "draft_model:k=2,keep=[0,1]"],
    "specinfer": ["specinfer:widths=[2]"],
    "rsd_c": ["rsd_c:widths=[2]", "rsd_c:widths=[2,1]"],
    "rsd_s": ["rsd_s:width=1,depth=2"],
    "dyspec": ["dyspec:rows=2", "dyspec:rows=2,form=heap"],
    "dynamic_tree": ["dynamic_tree:rows=4,k=2,depth=2"],
    "sequoia": ["sequoia:rows=2,depth=2,acceptance=[0.5,0.4]"],
    "specdec_pp": ["specdec_pp:threshold=0.5,most=3", "specdec_pp:estimate=entropy,most=2"],
    "vocab_trim": ["vocab_trim:k=2,keep=2"],
    "pearl": ["pearl:k=2", "pearl:k=1"],
    "aded": ["aded:iterations=8,depth=2"],
    "jacobi": ["jacobi:window=3"],
    "lookahead": ["lookahead:window=2,n=3,guesses=2", "lookahead:window=3,n=2,guesses=1,from_prompt=false"],
    "sjd": ["sjd:window=3"],
    "stand": [
        "stand:n_max=2,n_min=1,k=3,template=[[0],[1],[0,0]]",
        "stand:n_max=1,n_min=1,k=2,template=[[0],[1],[0,0]],every_node=true",
    ],
    "token_recycling": ["token_recycling:k=2,template=[[0],[1],[0,0]]"],
}
