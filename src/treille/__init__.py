"""Every decoding method for language models on one engine."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from treille.errors import (
    Cancelled,
    CapacityError,
    CheckpointError,
    DecodingError,
    InternalError,
    NoTokenLeft,
    ParameterError,
    StrategyError,
    TreilleError,
    UserError,
)
from treille.output import Candidate, Generation
from treille.requests import (
    Argmax,
    Attention,
    Call,
    Choice,
    Distribution,
    Forward,
    Gather,
    Hidden,
    LogProbs,
    Probabilities,
    Race,
    Sample,
    Score,
    ScoredText,
    Top,
    TopK,
)
from treille.strategies import (
    beam,
    best_of_n,
    diverse_beam,
    first_finish,
    greedy,
    lossy_layer_skip,
    sample,
    self_consistency,
)
from treille.strategy import Hypothesis, Output, Run, advance, complete, strategy
from treille.tree import Node

if TYPE_CHECKING:
    from treille.constraints import after, choices, grammar, json_object, json_schema, regex, trie
    from treille.language_model import LanguageModel, load
    from treille.stream import Stream
    from treille.trace import Trace

__version__ = "0.1.0"

__all__ = [
    "Argmax",
    "Attention",
    "Call",
    "Cancelled",
    "Candidate",
    "CapacityError",
    "CheckpointError",
    "Choice",
    "DecodingError",
    "Distribution",
    "Forward",
    "Gather",
    "Generation",
    "Hidden",
    "Hypothesis",
    "InternalError",
    "LanguageModel",
    "LogProbs",
    "NoTokenLeft",
    "Node",
    "Output",
    "ParameterError",
    "Probabilities",
    "Race",
    "Run",
    "Sample",
    "Score",
    "ScoredText",
    "StrategyError",
    "Stream",
    "Top",
    "TopK",
    "Trace",
    "TreilleError",
    "UserError",
    "__version__",
    "advance",
    "after",
    "beam",
    "best_of_n",
    "choices",
    "complete",
    "diverse_beam",
    "first_finish",
    "grammar",
    "greedy",
    "json_object",
    "json_schema",
    "load",
    "lossy_layer_skip",
    "regex",
    "sample",
    "self_consistency",
    "strategy",
    "trie",
]

# What needs torch or llguidance is imported when it is first asked for: `import treille` and the help stay quick.
_LAZY = {
    **dict.fromkeys(
        ("after", "choices", "grammar", "json_object", "json_schema", "regex", "trie"), "treille.constraints"
    ),
    "LanguageModel": "treille.language_model",
    "Stream": "treille.stream",
    "Trace": "treille.trace",
    "load": "treille.language_model",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        msg = f"module 'treille' has no attribute {name!r}"
        raise AttributeError(msg)
    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
