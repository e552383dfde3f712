"""From a model to text: engines, sampling, the terminal chat, and the directory that other tools open."""
