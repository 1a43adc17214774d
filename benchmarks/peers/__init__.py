"""Hedgerow beside what people use today: the same model, prompts and lengths, in one run."""
