"""Records to tokens: the chat template with its mask, the token store, packing."""
