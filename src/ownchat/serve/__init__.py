"""The gateway: OpenAI's API over the engines, with keys, limits and records."""
