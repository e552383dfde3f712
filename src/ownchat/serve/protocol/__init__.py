"""What clients may send: OpenAI's requests as frozen pydantic models."""
