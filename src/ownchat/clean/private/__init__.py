"""Private data in text: found by patterns, by key formats and by a small tagger, and replaced by placeholders."""
