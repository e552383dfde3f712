"""The engine behind a URL: any server that speaks OpenAI's chat completions, through the official SDK. No torch here.

It gets messages, never ids: the server has the template. The key is ``OPENAI_API_KEY``, or what another named variable
of the environment holds, and comes from nowhere else; it is never printed. A model behind a URL is written
``URL#MODEL``, as in ``http://localhost:8000/v1#my-model``.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import urlsplit

from ownchat.errors import UserError
from ownchat.generate.connection import Connection, Left, interruptible
from ownchat.generate.engine import Delta, FinishReason, Message, Request, Sampling, Usage
from ownchat.monitor.progress import say

NOT_OPENAI = "the server's answer is not an OpenAI one"
SENT = ("role", "content", "name", "tool_calls", "tool_call_id")  # of a message; weights and times are ours
LOOK_SECONDS = 0.05  # between two looks at cancel
READER = "answer of a server"  # the thread that reads one
MOST_WORDS = 200  # characters of a server's own words in a message of ours

# What servers refuse that others need. A refusal is remembered, and the request is made again in the other form.
OTHER_FORM = {"max_tokens": "max_completion_tokens", "seed": None, "stream_options": None, "temperature": None}


class Unusable(UserError):
    """The server is down, refuses the key, or has no such model: no other request would fare better."""


class Busy(UserError):
    """The server is too slow, or has had enough requests: another prompt would fare no better now."""


class Failed(UserError):
    """The server failed at this answer, or it broke off: asked again, it may well succeed."""


def is_url(name: str) -> bool:
    """Is this a model behind a URL?

    >>> is_url("http://localhost:8000/v1#my-model"), is_url("support-inbox")
    (True, False)
    """
    return name.startswith(("http://", "https://"))


def parse_model(text: str) -> tuple[str, str | None]:
    """``URL#MODEL`` as URL and model; none: the first that the server has.

    >>> parse_model("http://localhost:8000/v1#my-model"), parse_model("https://host/v1/")
    (('http://localhost:8000/v1', 'my-model'), ('https://host/v1', None))
    """
    url, _, model = text.partition("#")
    try:
        parts = urlsplit(url)
        good = is_url(url) and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is none
        good = False
    if not good:
        raise UserError("this is no URL", where=url, fix="write it as http://HOST:PORT/v1#MODEL")
    if parts.password or parts.username:
        raise UserError("a URL with a password in it", where=parts.hostname or "", fix="set OPENAI_API_KEY instead")
    return url.rstrip("/"), model or None


class OpenAIEngine:
    """An :class:`~ownchat.generate.engine.Engine` over a URL. Threads may share it.

    Busy servers (408, 409, 429, 5xx) and broken connections are tried again ``retries`` times after waits that grow,
    or that the server's ``retry-after`` names. ``timeout_seconds`` is for each wait for the server. ``model`` none: the
    first of the server's list, which is asked when it is first needed. ``key_variable`` of the environment has the key.
    :class:`Unusable`, :class:`Busy`, :class:`Failed` and :class:`~ownchat.errors.UserError` say what went wrong; a
    prompt that is too long has ``where="prompt"``.
    """

    context: int | None = None  # servers do not say

    def __init__(
        self, url: str, model: str | None = None, *, timeout_seconds: float = 120.0, retries: int = 4,
        key_variable: str = "OPENAI_API_KEY",
    ) -> None:  # fmt: skip
        from openai import DefaultHttpxClient, OpenAI

        self.url, named = parse_model(url)
        self._model, self._timeout, self._retries = model or named, timeout_seconds, retries
        self._key_variable, key = key_variable, os.environ.get(key_variable) or "none"  # the SDK wants one
        http = DefaultHttpxClient(follow_redirects=False, timeout=timeout_seconds)  # what is asked goes nowhere else
        self._client = OpenAI(base_url=self.url, api_key=key, max_retries=retries, http_client=http)
        self._refused: set[str] = set()
        self._lock = Lock()

    @property
    def model(self) -> str:
        """The model's name; raises :class:`~ownchat.errors.UserError` where it has to be asked for and cannot."""
        with self._lock:
            if self._model is None:
                try:
                    listed = list(getattr(self._client.models.list(), "data", None) or [])
                    found = [str(name) for item in listed if (name := getattr(item, "id", None))]
                except (AttributeError, TypeError, ValueError) as error:  # a web page, or a list: the SDK trips over it
                    raise Unusable(NOT_OPENAI, where=self.url, fix=self._address()) from error
                except Exception as error:
                    raise self._explained(error, "/models") from error
                if not found:
                    raise Unusable("the server lists no model", where=self.url, fix="name one: URL#MODEL")
                self._model = found[0]
            return self._model

    # --------------------------------------------------------------------------------------------------- answers

    def complete(self, request: Request, *, limited: bool = True) -> Delta:
        """The whole answer in one delta. ``limited`` false: no ``max_tokens`` is sent, the server's limit counts."""
        parameters = self._parameters(request)
        if not limited:
            del parameters["max_tokens"]
        for left in reversed(range(min(self._retries, 2) + 1)):  # the SDK tries again what failed, but not nonsense
            try:
                return self._whole(self._create(parameters, stream=False))
            except UserError as error:
                if isinstance(error, Unusable) or error.what != NOT_OPENAI or not left:
                    raise
                time.sleep(1 / (left + 1))
        raise AssertionError("the last round returns or raises")

    def stream(self, request: Request, cancel: Event | None = None) -> Iterator[Delta]:
        """The answer as it comes. ``cancel`` hangs up at once, also while the server still thinks; then nothing is
        asked again. (While a connection is being made: as soon as it is.)

        Raises :class:`~ownchat.errors.UserError` at once for what a server cannot be asked; an answer that breaks off
        raises when it does. ``usage`` is 0 and 0 where the server does not count.
        """
        return self._answer(self._parameters(request), cancel if cancel is not None else Event())

    def _answer(self, parameters: dict[str, Any], cancel: Event) -> Iterator[Delta]:
        pieces: SimpleQueue[Any] = SimpleQueue()  # chunks, an error, or None at the end
        connection = Connection()

        def read() -> None:
            try:
                client = self._client.with_options(http_client=connection.client)
                sent = parameters | {"stream_options": {"include_usage": True}}
                with self._create(sent, stream=True, client=client) as stream:
                    for chunk in stream:
                        if connection.left.is_set():
                            return
                        pieces.put(chunk)
                pieces.put(None)
            except BaseException as error:  # raised again in the caller's thread
                pieces.put(error)
            finally:
                connection.client.close()

        Thread(target=read, name=READER, daemon=True).start()
        reason, usage = None, Usage(0, 0)
        try:
            while True:
                if cancel.is_set():
                    yield Delta("", finish_reason="cancelled", usage=usage)
                    return
                try:
                    piece = pieces.get(timeout=LOOK_SECONDS)
                except Empty:
                    continue
                if piece is None:
                    break
                if isinstance(piece, BaseException):
                    raise piece if isinstance(piece, UserError) else self._explained(piece, streaming=True) from piece
                usage = _usage(piece) or usage
                choices: Any = getattr(piece, "choices", None)
                for choice in choices[:1] if isinstance(choices, list) else []:
                    reason = self._reason(getattr(choice, "finish_reason", None)) or reason
                    if text := self._text(getattr(choice, "delta", None)):
                        yield Delta(text)
        finally:
            connection.hang_up()
        if reason is None:
            raise Failed("the answer broke off", where=self.url, fix="ask again, or look at the server's own log")
        yield Delta("", finish_reason=reason, usage=usage, stopped="stop" in parameters)  # which end it was is not told

    def score(self, ids: Sequence[int], mask: Sequence[int], *, adapter: str | None = None) -> list[float]:
        """Natural-log probabilities of the tokens whose mask is 1; ``ids`` are those of the server's tokenizer.

        The server's ``/completions`` has to echo a prompt with them, as vLLM's does.

        Raises :class:`~ownchat.errors.UserError` where it cannot.
        """
        if len(ids) != len(mask) or any(mask[:1]):
            raise UserError("as many mask values as ids, and the first of them 0", where="score")
        _check_adapter(adapter)
        cannot = UserError(
            "the server does not give the probabilities of a text", where=self.url,
            fix="ask one whose /completions has echo and logprobs (vLLM), or score a local model",
        )  # fmt: skip
        try:
            reply: Any = self._client.completions.create(
                model=self.model, prompt=list(ids), max_tokens=1, echo=True, logprobs=1, temperature=0
            )
        except UserError:
            raise
        except Exception as error:
            explained = self._explained(error, "/completions")
            if isinstance(explained, Unusable) and "has no /" not in explained.what:
                raise explained from error
            raise cannot from error
        try:
            found = reply.choices[0].logprobs.token_logprobs
            return [float(found[at]) for at, wanted in enumerate(mask) if wanted]
        except (AttributeError, IndexError, TypeError) as error:  # answered, but not with that
            raise cannot from error

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """The vector of each text by a model of embeddings. Raises :class:`~ownchat.errors.UserError`."""
        return self.embed_counted(texts, Event())[0]

    def embed_counted(self, texts: Sequence[str], cancel: Event) -> tuple[list[list[float]], int | None]:
        """The same, and the tokens of the texts as the server counts them, if it does. ``cancel`` hangs up."""
        client: Any = self._client
        asked = {"model": self.model, "input": list(texts), "encoding_format": "float"}
        try:
            reply = interruptible(lambda http: client.with_options(http_client=http).embeddings.create(**asked), cancel)
            vectors = [list(item.embedding) for item in sorted(reply.data, key=lambda item: item.index)]
        except (UserError, Left):
            raise
        except (AttributeError, TypeError) as error:
            raise Failed(NOT_OPENAI, where=self.url, fix="check the URL") from error
        except Exception as error:
            raise self._explained(error, "/embeddings") from error
        return vectors, getattr(getattr(reply, "usage", None), "prompt_tokens", None) or None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # ---------------------------------------------------------------------------------------------------- inside

    def _parameters(self, request: Request) -> dict[str, Any]:
        """The request in OpenAI's words.

        What has no word there is sent where it is not the default, in those of vLLM; other servers refuse it.
        """
        if request.messages is None:
            raise UserError("a server gets messages, not ids", where="request", fix="give Request(messages=...)")
        _check_adapter(request.adapter)
        sampling, plain = request.sampling, Sampling()
        parameters: dict[str, Any] = {
            "messages": list(map(_sent, request.messages)),
            "max_tokens": request.max_tokens,
            "temperature": sampling.temperature,
        }
        if sampling.top_p != plain.top_p:
            parameters["top_p"] = sampling.top_p
        for name in ("frequency_penalty", "presence_penalty"):
            if value := getattr(sampling, name):
                parameters[name] = value
        if sampling.logit_bias:
            parameters["logit_bias"] = {str(id): value for id, value in sampling.logit_bias.items()}
        if sampling.seed is not None:
            parameters["seed"] = sampling.seed
        if sampling.stop:
            parameters["stop"] = list(sampling.stop)
        names = ("top_k", "min_p", "repetition_penalty")
        more = {name: getattr(sampling, name) for name in names if getattr(sampling, name) != getattr(plain, name)}
        if more:
            parameters["extra_body"] = more
        if request.schema is not None:
            form = {"name": "answer", "schema": dict(request.schema), "strict": True}
            parameters["response_format"] = {"type": "json_schema", "json_schema": form}
        return parameters

    def _create(self, parameters: Mapping[str, Any], *, stream: bool, client: Any = None) -> Any:
        """The SDK's call; a parameter that the server refuses by name is written in its other form, or left out."""
        while True:
            sent = dict(parameters)
            for name in self._refused & sent.keys():
                value, other = sent.pop(name), OTHER_FORM[name]
                if other is not None:
                    sent[other] = value
            try:
                return (client or self._client).chat.completions.create(model=self.model, stream=stream, **sent)
            except UserError:
                raise
            except Exception as error:
                refused = _refused(error, sent)
                if refused is None:
                    raise self._explained(error) from error
                if refused in ("seed", "temperature") and refused not in self._refused:
                    say(f"{self.url} takes no {refused}: the server's own counts")
                self._refused.add(refused)

    def _whole(self, reply: Any) -> Delta:
        choices: Any = getattr(reply, "choices", None)
        said = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
        if not hasattr(said, "content"):
            raise Failed(NOT_OPENAI, where=self.url, fix=self._address())
        reason = self._reason(getattr(choices[0], "finish_reason", None)) or "stop"
        return Delta(self._text(said), finish_reason=reason, usage=_usage(reply) or Usage(0, 0))

    def _text(self, said: object) -> str:
        """The text of a message or of a piece; of parts those that are text (others are thoughts)."""
        content: Any = getattr(said, "content", None)
        if isinstance(content, list) and all(isinstance(part, dict) and "type" in part for part in content):
            texts = [part.get("text") for part in content if part["type"] == "text"]
            content = "".join(texts) if all(isinstance(text, str) for text in texts) else content
        if content is None or isinstance(content, str):
            return content or ""
        raise Failed(NOT_OPENAI, where=self.url, fix=self._address())

    def _reason(self, given: object) -> FinishReason | None:
        """Theirs as ours; an answer that a filter withheld is none."""
        if given == "content_filter":
            raise UserError("the server's filter withheld the answer", where=self.url, fix="ask something else")
        return None if given is None else "length" if given == "length" else "stop"

    def _address(self, check: str = "check the URL") -> str:
        return check + ("" if "/v1" in self.url else "; most servers' URLs end in /v1")

    def _explained(self, error: BaseException, path: str = "", *, streaming: bool = False) -> UserError:
        """What went wrong in a person's words. Of the server's own only those that say what it refuses are repeated."""
        import openai

        where = self.url
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return Unusable("the server refuses the key", where=where, fix=f"set {self._key_variable}")
        if isinstance(error, openai.NotFoundError):
            fix = self._address("check the name of the model")
            what = f'the server does not know the model "{self._model}"' if not path else f"the server has no {path}"
            return Unusable(what, where=where, fix=fix)
        if isinstance(error, openai.RateLimitError):
            fix = "ask again later, or check your quota"
            return Busy("the server has had enough requests (429)", where=where, fix=fix)
        if isinstance(error, openai.APITimeoutError):
            fix = "ask again, or look at the server's own log"
            return Busy(f"no answer within {self._timeout:.0f} seconds", where=where, fix=fix)
        if isinstance(error, openai.APIConnectionError) and streaming:
            return Failed("the answer broke off", where=where, fix="ask again, or look at the server's own log")
        if isinstance(error, openai.APIConnectionError):
            return Unusable("the server cannot be reached", where=where, fix="check the URL and the network")
        if isinstance(error, openai.APIStatusError):
            words = str(error.message).lower()
            if error.status_code in (400, 413) and "context" in words:
                return UserError("the prompt is longer than the model's context", where="prompt", fix="shorten it")
            told = f": {_words(error)}" if error.status_code in (400, 422) else ""
            elsewhere = " (it sends elsewhere, which is not followed)" if 300 <= error.status_code < 400 else ""
            fix = self._address() if elsewhere else "look at the server's own log"
            what = f"the server answers with error {error.status_code}{told}{elsewhere}"
            failed = error.status_code >= 500 or error.status_code in (408, 409)
            return (Failed if failed else UserError)(what, where=where, fix=fix)
        if type(error) is openai.APIError:  # in a stream: the server says that it failed
            return Failed(f"the server gave up: {_words(error)}", where=where, fix="look at the server's own log")
        if isinstance(error, openai.OpenAIError | ValueError):
            kind = Unusable if path == "/models" else Failed  # without a model nothing can be asked
            return kind(NOT_OPENAI, where=where, fix=self._address())
        raise error


def _words(error: Any) -> str:
    """The server's own words, in short."""
    body = error.body if isinstance(error.body, dict) else {}
    return " ".join(str(body.get("message") or error.message).split())[:MOST_WORDS]


def _refused(error: Exception, sent: Mapping[str, Any]) -> str | None:
    """Which of the parameters that have another form the server refuses; none: something else is wrong."""
    if getattr(error, "status_code", None) not in (400, 422):
        return None
    body: Any = getattr(error, "body", None)
    words = str(getattr(error, "message", ""))
    if not any(word in words.lower() for word in ("support", "unknown", "unrecognized", "extra", "permitted")):
        return None  # its value is wrong, not its name
    named = body.get("param") if isinstance(body, dict) else None
    known = [name for name in OTHER_FORM if name in sent]
    return next((name for name in known if name == named), None) or next((n for n in known if n in words), None)


def _check_adapter(adapter: str | None) -> None:
    if adapter is not None:
        raise UserError("a server's adapters are models of their own", where="request", fix="name it: URL#MODEL")


def _sent(message: Message) -> dict[str, Any]:
    """A message as the protocol has it: no empty fields, tool calls as values."""
    sent = {key: message[key] for key in SENT if message.get(key) is not None}
    if isinstance(sent.get("tool_calls"), str):
        sent["tool_calls"] = json.loads(sent["tool_calls"])
    return {"content": ""} | sent


def _usage(reply: Any) -> Usage | None:
    usage = getattr(reply, "usage", None)
    counts = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
    return Usage(*counts) if all(isinstance(count, int) for count in counts) else None  # type: ignore[arg-type]
