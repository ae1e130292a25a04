"""Every drafter, small enough for tables of three tokens: what `test_draft_law` enumerates. One entry per drafter."""

import atexit
from pathlib import Path
from tempfile import TemporaryDirectory

from treille.train.datastore import build_datastore

_PLACE = TemporaryDirectory()
atexit.register(_PLACE.cleanup)
STORE = f"datastore={_PLACE.name}/store"
build_datastore([[0, 1, 0, 2, 1, 0], [1, 1, 0, 0, 2, 1], [2, 0, 0]], Path(_PLACE.name) / "store", vocab_size=3)

CASES: dict[str, list[str]] = {
    "prompt_lookup": ["prompt_lookup:k=3,n_max=2", "prompt_lookup:k=2,n_max=1,pick=earliest"],
    "draft_model": ["draft_model:k=2", "draft_model:k=2,keep=[0,1]"],
    "specinfer": ["specinfer:widths=[2]"],
    "rsd_c": ["rsd_c:widths=[2]"],
    "rsd_s": ["rsd_s:width=1,depth=2"],
    "dyspec": ["dyspec:rows=2", "dyspec:rows=2,form=heap"],
    "dynamic_tree": ["dynamic_tree:rows=4,k=2,depth=2"],
    "sequoia": ["sequoia:rows=2,depth=2,acceptance=[0.5,0.4]"],
    "specdec_pp": ["specdec_pp:threshold=0.5,most=3", "specdec_pp:estimate=entropy,most=2"],
    "vocab_trim": ["vocab_trim:k=2,keep=2"],
    "copyspec": ["copyspec:gamma=1,k=2", "copyspec:gamma=2,model=draft,delta=1"],
    "suffix": ["suffix:k=2,offset=1", "suffix:k=3,shape=tree,offset=2,depth=4,cache_tokens=3"],
    "retrieval": [f"retrieval:{STORE},nodes=2,k=2,shortest=1"],
    "rasd": [f"rasd:{STORE},rows=2,k=2,depth=1,first=2,shortest=1,length=2"],
    "combined": [
        "combined:drafters=[prompt_lookup(k=2),suffix(k=2)]",
        "combined:drafters=[draft_model(k=1),copyspec(gamma=1,k=1)]",
    ],
    "pearl": ["pearl:k=2", "pearl:k=1"],
    "aded": ["aded:iterations=8,depth=2", f"aded:{STORE},iterations=8,depth=2"],
    "jacobi": ["jacobi:window=3"],
    "lookahead": ["lookahead:window=2,n=3,guesses=2", "lookahead:window=3,n=2,guesses=1,from_prompt=false"],
    "sjd": ["sjd:window=3"],
    "stand": [
        "stand:n_max=2,k=3,template=[[0],[1],[0,0]]",
        "stand:n_max=1,k=2,template=[[0],[1],[0,0]],every_node=false",
    ],
    "early_exit": ["early_exit:layer=1,k=2", "early_exit:layer=3,k=3,threshold=0.4"],
    "layer_skip": ["layer_skip:k=2"],
    "dynamic_exit": ["dynamic_exit:k=2,every=1", "dynamic_exit:k=3,every=2,head=0.5"],
    "swift": ["swift:k=2,width=2,window=1,bayes_every=2", "swift:k=2,width=1,proposals=0,threshold=0"],
    "s2d": ["s2d:k=2,model=draft,exits=[1,2,4],thresholds=[0.4,0.45]"],
    "triforce": ["triforce:k=2,budget=4,chunk=2", "triforce:k=3,budget=2,chunk=1,refresh=1"],
    "token_recycling": ["token_recycling:k=2,template=[[0],[1],[0,0]]"],
}
