"""Models: the starter, loading and saving, LoRA, attention over packed documents, loss and log-probabilities."""
