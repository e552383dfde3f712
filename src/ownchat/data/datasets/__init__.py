"""Data sets made for training: ShareGPT, Alpaca, preferences, reviews, labelled texts, dialogue sets, Parquet."""
