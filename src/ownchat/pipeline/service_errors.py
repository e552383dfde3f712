"""Errors of OpenAI's SDK at a service that trains or is left, in a person's words.

What an engine meets that answers is told in :mod:`ownchat.generate.openai`; the kinds of error are the same.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from ownchat.errors import UserError
from ownchat.generate.openai import Busy, Failed, Unusable

KEY = "OPENAI_API_KEY"
NOT_OPENAI = "the service's answer is not an OpenAI one"
MOST_WORDS = 400  # characters of a service's own words
AGAIN = "run the same command again: it goes on"
TO_READ = "use a key of the project that has them, with the right to read files and fine-tuning jobs"
TO_TRAIN = "use a key that may train; of ownchat serve: ownchat keys create NAME --scope train --scope infer"


class NotThere(UserError):
    """The service has no such endpoint, or nothing of that name."""


def explained(error: Exception, url: str, what: str, *, reading: bool = False) -> UserError:
    """``url``: the service's; ``what`` it was asked for, a noun without an article; ``reading``: nothing was to be made
    there. Of the service's own words those on what it refuses are repeated, without the key.

    :class:`Busy` and :class:`Failed` where the same may succeed later, :class:`Unusable` where the key is the reason,
    :class:`NotThere` for 404, else a plain :class:`~ownchat.errors.UserError`. What is none of the SDK's errors (a full
    disk, say) is raised as it is.
    """
    import openai

    if isinstance(error, UserError):
        return error
    where = urlsplit(url).netloc
    check = "check the URL" + ("" if "/v1" in url else "; most services' URLs end in /v1")
    if isinstance(error, openai.AuthenticationError):
        return Unusable("the service refuses the key (401)", where=where, fix=f"set {KEY} to a key of this service")
    if isinstance(error, openai.PermissionDeniedError):
        refused, fix = (f"read {what}", TO_READ) if reading else ("do this", TO_TRAIN)
        return Unusable(f"the key may not {refused} (403): {words_of(error)}", where=where, fix=fix)
    if isinstance(error, openai.NotFoundError):
        return NotThere(f"the service has no {what} (404)", where=where, fix=check)
    if isinstance(error, openai.RateLimitError):
        return Busy(f"the service has had enough requests (429): {words_of(error)}", where=where, fix=AGAIN)
    if isinstance(error, openai.APIConnectionError):  # a time that was over as well
        fix = f"check the URL and the network, and {AGAIN}"
        return Failed("the service cannot be reached", where=where, fix=fix)
    if isinstance(error, openai.APIStatusError):
        status = f"the service answers with error {error.status_code}"
        if 300 <= error.status_code < 400:
            return UserError(f"{status} (it sends elsewhere, which is not followed)", where=where, fix=check)
        failed = error.status_code >= 500 or error.status_code in (408, 409)
        fix = AGAIN if failed else "mend what it says"
        return (Failed if failed else UserError)(f"{status}: {words_of(error)}", where=where, fix=fix)
    if isinstance(error, openai.OpenAIError | ValueError | AttributeError | TypeError):  # a web page: the SDK trips
        return UserError(NOT_OPENAI, where=where, fix=check)
    raise error


def words_of(error: Any) -> str:
    """The service's own words, in short; one that repeats the key is not repeated in that."""
    body = error.body if isinstance(getattr(error, "body", None), dict) else {}
    words = " ".join(str(body.get("message") or getattr(error, "message", error)).split())
    key = os.environ.get(KEY)
    return (words.replace(key, "[key]") if key else words)[:MOST_WORDS]
