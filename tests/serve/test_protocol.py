"""What bodies may hold, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from ownchat.serve.errors import ApiError
from ownchat.serve.protocol.body import check_metadata, explained
from ownchat.serve.protocol.chat import ChatRequest
from ownchat.serve.protocol.completions import CompletionRequest
from ownchat.serve.protocol.responses import ResponseRequest

BODIES: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (ChatRequest, {"model": "m", "messages": [{"role": "user", "content": "x"}]}),
    (CompletionRequest, {"model": "m", "prompt": "x"}),
    (ResponseRequest, {"model": "m", "input": "x"}),
]


@pytest.mark.parametrize(("model", "body"), BODIES)
def test_null_is_as_if_it_was_not_there(model: type[BaseModel], body: dict[str, Any]) -> None:
    """Clients send ``"stop": null`` and the like for all that nobody set."""
    plain = model.model_validate(body)
    for name in model.model_fields.keys() - body.keys():
        assert model.model_validate({**body, name: None}) == plain, name


@pytest.mark.parametrize(("model", "body"), BODIES)
@pytest.mark.parametrize("value", [True, -1, 10**40, 1.5, "x", "", [], ["x"], [[]], {}, {"x": 1}, [None]])
def test_any_value_anywhere_is_taken_or_refused(model: type[BaseModel], body: dict[str, Any], value: Any) -> None:
    for name in model.model_fields:
        try:
            model.model_validate({**body, name: value})
        except ValidationError as error:
            refusal = explained(error)
            assert refusal.status == 400 and refusal.message, name


def test_what_is_wrong_is_named_and_its_value_is_not() -> None:
    secret = "a private word"
    with pytest.raises(ValidationError) as caught:
        ChatRequest.model_validate({"model": "m", "messages": [{"role": "user", "content": {"x": secret}}]})
    refusal = explained(caught.value)
    assert refusal.param == "messages.0.content" and secret not in str(refusal.body())


def test_metadata_have_openais_limits() -> None:
    assert check_metadata(None) == {} and check_metadata({"edited": "x" * 600})
    for wrong in ({"k": "x" * 513}, {"k" * 65: "x"}, {str(n): "x" for n in range(17)}):
        with pytest.raises(ApiError):
            check_metadata(wrong)
