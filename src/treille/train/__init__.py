"""Task suite, tokenizer and recipes of the bundled models; nothing that decodes imports it."""
