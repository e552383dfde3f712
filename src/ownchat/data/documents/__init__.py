"""Documents: files of prose, turned into clean text for continued pre-training."""
