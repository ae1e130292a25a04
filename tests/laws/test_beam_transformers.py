"""Beam search against `transformers` itself, on tables wrapped as its models."""

import math
from itertools import product

import pytest
import torch

from treille.sampling.chain import Chain
from treille.sampling.lexical import MinNewTokens
from treille.sampling.penalties import RepetitionPenalty
from treille.strategies import beam
from treille.testing import TableModel, run_alone

transformers = pytest.importorskip("transformers")
from transformers.modeling_outputs import CausalLMOutputWithPast  # noqa: E402


class TableConfig(transformers.PreTrainedConfig):
    """The configuration of a table."""

    model_type = "treille_table"


class TableLM(transformers.PreTrainedModel, transformers.GenerationMixin):
    """A table as a `transformers` model: the logits of the last position are log p."""

    config_class = TableConfig

    def __init__(self, table):
        super().__init__(TableConfig(vocab_size=table.vocabulary_size))
        self.table = table
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, attention_mask=None, **_):
        """Log-probabilities as logits, of the last position."""
        rows = [[math.log(p) for p in self.table.law(row)] for row in input_ids.tolist()]
        return CausalLMOutputWithPast(logits=torch.tensor(rows)[:, None, :])

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **_):
        """The ids alone: a table has no cache."""
        return {"input_ids": input_ids}


def theirs(model, width, ends, early_stopping, length_penalty, **more):
    """Texts and scores of `transformers`."""
    output = TableLM(model).generate(
        torch.tensor([[0]]), attention_mask=torch.ones(1, 1, dtype=torch.long), num_beams=width,
        num_return_sequences=width, max_new_tokens=5, early_stopping=early_stopping, length_penalty=length_penalty,
        eos_token_id=list(ends), pad_token_id=99, do_sample=False, return_dict_in_generate=True, output_scores=True,
        use_cache=False, **more,
    )  # fmt: skip
    texts = [tuple(t for t in row[1:] if t != 99) for row in output.sequences.tolist()]
    return texts, output.sequences_scores.tolist()


CASES = list(product([False, True, "never"], [2, 3, 4], [0.0, 1.0, 2.0]))


@pytest.mark.parametrize("processed", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_texts_and_scores_are_those_of_transformers(seed, processed):
    """Same returned texts, same order, scores within 1e-4; with penalties and a minimal length too."""
    for i, (early_stopping, width, length_penalty) in enumerate(CASES):
        vocabulary, ends = ((6, (5,)), (6, (4, 5)))[i % 2]
        model = TableModel.hashed(vocabulary, 100 * seed + i)
        more = {"repetition_penalty": 1.3, "min_new_tokens": 2} if processed else {}
        texts, scores = theirs(model, width, ends, early_stopping, length_penalty, **more)
        chain = Chain((RepetitionPenalty(1.3), MinNewTokens(2, ends))) if processed else None
        done = run_alone(
            beam(width=width, length_penalty=length_penalty, early_stopping=early_stopping), model,
            max_new_tokens=5, eos_token_ids=ends, num_return_sequences=width, processors=chain,
        )  # fmt: skip
        assert list(done.texts) == texts
        assert [h.score for h in done.output.candidates] == pytest.approx(scores, abs=1e-4)
