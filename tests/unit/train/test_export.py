"""Exported models: ordinary Hugging Face directories with a tokenizer, a card and a picture."""

from xml.etree import ElementTree as ET

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import treille
from treille.errors import CheckpointError
from treille.language_model import BUNDLED
from treille.train.accuracy import Accuracy
from treille.train.alignment import Acceptance
from treille.train.card import Results, card
from treille.train.export import config, read_weights
from treille.train.network import Llama
from treille.train.recipe import load_recipe
from treille.train.tasks import TASKS
from treille.train.tokenizer import SPECIAL, mixture, train_tokenizer

TEXTS = ("def f(x):\n    return x + 10\n", "a\t b\r\n\n  c", "naïve ☃ 12345", "{'k': [1, 2]}", "")


@pytest.fixture(scope="module")
def model(finished):
    """The directory of the exported model."""
    return finished / "model"


def test_transformers_gives_the_same_greedy_text(model):
    """`transformers` loads the directory, and greedy decoding is the same in float32."""
    lm = treille.load(model, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(model)
    theirs = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    ids = tokenizer("def fib(n):", return_tensors="pt").input_ids
    output = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
    ours = lm.generate("def fib(n):", max_new_tokens=24)
    assert list(ours.prompt_tokens) == ids[0].tolist()
    assert list(ours.tokens) == output[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("text", TEXTS)
def test_tokenizer_round_trip(model, text):
    """Every text survives its tokens."""
    tokenizer = treille.load(model).tokenizer
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_and_digits(model):
    """Special tokens have the ids 0 to 4, and every digit is a token."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL)) == [0, 1, 2, 3, 4]
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.mask_token) == (SPECIAL[1], SPECIAL[0], SPECIAL[2])
    assert len(tokenizer("x=12345").input_ids) == 7


def test_a_chat_is_what_was_trained_on(model):
    """The chat template gives the prompt that the training documents have before an answer."""
    lm = treille.load(model)
    messages = [{"role": "user", "content": "Sort: b, a"}]
    theirs = AutoTokenizer.from_pretrained(model).apply_chat_template(messages, add_generation_prompt=True)
    assert lm.encode(messages) == list(theirs["input_ids"])
    assert lm.encode(messages) == lm.encode("<|user|>Sort: b, a<|assistant|>")


def test_a_nested_draft_tells_its_exits():
    """The exits stand in the configuration of a nested draft, and in no other."""
    assert config(load_recipe("nested").shape)["exits"] == [2, 3, 4]
    assert "exits" not in config(load_recipe("draft").shape)


def test_weights_of_another_shape_are_refused(model):
    """A start whose shape differs names the file and the tensor."""
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*embed_tokens"):
        read_weights(Llama(load_recipe("draft").shape, 0), model)


def test_the_curve_is_a_picture(model):
    """`loss.svg` is well-formed, with a line for the training and for each held-out loss."""
    picture = ET.fromstring((model / "loss.svg").read_text())
    assert len(picture.findall("{http://www.w3.org/2000/svg}polyline")) == 3


def test_the_card_tells_what_was_done():
    """Data, licence, steps, losses, accuracies with intervals, acceptance and limits are in the card."""
    results = Results(
        6_000_000, 1.5, {"python": [2.5], "tasks": [0.5]}, 99.0,
        [Accuracy(name, 1, 40, 100) for name in TASKS], [("aligned", [Acceptance(0.0, 0.61, 900)])],
    )  # fmt: skip
    target = card(load_recipe("target"), "target", results)
    for part in (
        "psf-2.0", "Python Software Foundation", "steps of 2,048 tokens", "| python | 2.500 |", "loss.svg", "Limits",
        "| countdown | 1 | 40 | 100 | 40% | 31% to 50% |", "treille train model --config target",
    ):  # fmt: skip
        assert part in target
    aligned = card(load_recipe("draft-aligned"), "draft-aligned", results)
    assert "0, 0.6, 0.8 and 1" in aligned
    assert "| aligned | 0.610 |" in aligned


@pytest.mark.parametrize("name", [".", "draft", "nested"])
def test_transformers_decodes_the_bundled_models(name):
    """`transformers` gives the same greedy text of a bundled model in float32."""
    directory = BUNDLED / name
    lm = treille.load(directory, dtype="float32")
    theirs = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    for prompt in ("class Node:", "<|user|>Compute 3 + 4.<|assistant|>"):
        ids = torch.tensor([lm.encode(prompt)])
        output = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=32, do_sample=False)
        assert list(lm.generate(prompt, max_new_tokens=32).tokens) == output[0, ids.shape[1] :].tolist()


def test_the_drafts_have_the_tokenizer_of_the_target():
    """All bundled models have one tokenizer, byte by byte."""
    assert len({(BUNDLED / name / "tokenizer.json").read_bytes() for name in (".", "draft", "nested")}) == 1


def test_the_packaged_bundle_is_small():
    """The bundled models take at most 24 MB together."""
    total = sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file())
    assert total <= 24_000_000


def test_equal_texts_give_equal_tokenizers():
    """Training the tokenizer is deterministic, so a draft trained on its own has its target's tokenizer."""
    first, second = (train_tokenizer(mixture(8), 320).to_str() for _ in range(2))
    assert first == second
