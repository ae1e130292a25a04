"""Finds the family of a checkpoint."""

from treille.models.families import (
    gemma2,
    gemma3,
    gpt2,
    gpt_neox,
    granite,
    llama,
    mistral,
    mixtral,
    olmo2,
    phi3,
    qwen2,
    qwen3,
    qwen3_moe,
    smollm3,
)
from treille.models.families.base import Family
from treille.models.reader import ConfigReader

FAMILIES: tuple[Family, ...] = (
    gemma2.FAMILY,
    gemma3.FAMILY,
    gemma3.MULTIMODAL,
    gpt2.FAMILY,
    gpt_neox.FAMILY,
    granite.FAMILY,
    llama.FAMILY,
    mistral.FAMILY,
    mixtral.FAMILY,
    olmo2.FAMILY,
    phi3.FAMILY,
    qwen2.FAMILY,
    qwen3.FAMILY,
    qwen3_moe.FAMILY,
    smollm3.FAMILY,
)


def find_family(reader: ConfigReader) -> Family:
    """The family that reads a configuration: by ``architectures[0]``, or by ``model_type`` where that is absent.

    Raises:
        CheckpointError: The architecture is not known, or the configuration names none.
    """
    if not reader.has("architectures"):
        return reader.choice("model_type", {family.model_type: family for family in FAMILIES})
    names = reader.sequence("architectures", str)
    for family in FAMILIES:
        if names and names[0] in family.architectures:
            return family
    known = ", ".join(sorted(name for family in FAMILIES for name in family.architectures))
    raise reader.refusal(
        "architectures",
        f"is not supported; supported: {known}. Others run through transformers: "
        "treille.load(AutoModelForCausalLM.from_pretrained(…), tokenizer=directory)",
    )
