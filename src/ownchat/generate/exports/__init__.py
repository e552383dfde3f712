"""Finished models for other programs (GGUF, Ollama, vLLM), and the proof that they answer as the model does."""
