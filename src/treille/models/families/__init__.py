"""One small file per Hugging Face family: what its ``config.json`` means and how its tensors are called."""
