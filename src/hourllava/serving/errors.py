"""Errors as clients get them: OpenAI's shape, and a status that tells the SDK whether to try again.

The SDK tries again after 408, 409, 429 and every 5xx. So what will not get better by itself has another status, or says
`x-should-retry: false`.
"""

import asyncio
import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from hourllava.errors import Cancelled, DataError, EngineBusy, HourLlavaError, one_line
from hourllava.serving.failures import failure_of
from hourllava.serving.protocol import Video

MAX_RETRY_SECONDS = 120
"""The SDK does not try again at all if it is told to wait longer."""

DRAIN_RETRY_SECONDS = 30

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "upload_too_large"}
_SERVER_CODES = ("storage_full", "out_of_memory", "replica_lost", "internal")


class ErrorDetails(BaseModel):
    """What went wrong.

    Attributes:
        message: for people, on one line.
        type: the kind of fault, by status.
        param: the field of the request, if one is to blame.
        code: for programs; `docs/serving.md` lists them.
    """

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """Body of every answer with a status of 400 or more."""

    error: ErrorDetails


class ApiError(Exception):
    """An error for the client.

    Attributes:
        status: of HTTP.
        code: for programs.
        message: for people; on one line, without paths of the server.
        param: the field of the request, if one is to blame.
        headers: of the answer.
    """

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, one_line(message), param
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The body of the answer, or the data of an event."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        text = self.message.encode(errors="replace").decode()
        return {"error": {"message": text, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.body, self.status, self.headers)


def invalid(message: str, param: str | None = None, code: str = "invalid_request") -> ApiError:
    """A request that will never be right."""
    return ApiError(400, code, message, param)


def unsupported(param: str, advice: str = "leave it out") -> ApiError:
    """An option that this server does not have."""
    return invalid(f"{param} is not supported here; {advice}", param, "unsupported_parameter")


def not_found(what: str, param: str | None = None) -> ApiError:
    """No such thing, or it belongs to somebody else."""
    return ApiError(404, "not_found", f"there is no {what}", param)


def too_large(what: str, limit: int) -> ApiError:
    """More bytes than allowed."""
    return ApiError(413, "upload_too_large", f"{what} may have at most {limit:,} bytes")


def queue_full(message: str, retry_after_seconds: float) -> ApiError:
    """Come again later."""
    seconds = min(max(math.ceil(retry_after_seconds), 1), MAX_RETRY_SECONDS)
    return ApiError(429, "queue_full", message, headers={"Retry-After": str(seconds)})


def shutting_down() -> ApiError:
    """The server ends, and another may come."""
    headers = {"Retry-After": str(DRAIN_RETRY_SECONDS)}
    return ApiError(503, "shutting_down", "the server is shutting down; try again later", headers=headers)


def cancelled() -> ApiError:
    """Somebody cancelled the watching of the video."""
    return invalid("the watching of this video was cancelled; ask again to watch it anew", code="cancelled")


def failed(code: str, message: str) -> ApiError:
    """An engine's failure, with a status that fits its code."""
    if code == "shutting_down":
        return shutting_down()
    if code in _SERVER_CODES:
        headers = {"x-should-retry": "false"} if code == "storage_full" else None
        return ApiError(503 if code != "internal" else 500, code, message, headers=headers)
    return ApiError(400, code, message)


def api_error(error: BaseException, video: Video | None = None, *, is_draining: bool = False) -> ApiError:
    """Any error as one for the client; one that is not foreseen is logged.

    Args:
        error: raised by an engine, the store, or a bug.
        video: whose path is not shown.
        is_draining: whether the server ends, which explains a cancellation.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, EngineBusy):
        return queue_full(str(error), error.retry_after_seconds)
    if isinstance(error, Cancelled | asyncio.CancelledError):
        return shutting_down() if is_draining else cancelled()
    if isinstance(error, DataError):
        return invalid(str(error))
    failure = failure_of(error, video)
    return failed(failure.code, failure.message)


def _from_validation(error: RequestValidationError) -> ApiError:
    """The first fault of a request, with its field in dots: `messages.0.content`."""
    fault, *others = error.errors()
    where = [str(part) for part in fault["loc"] if part not in ("body", "query", "path", "header")]
    param = one_line(".".join(where))[:200].encode(errors="replace").decode() or None
    if fault["type"] == "extra_forbidden":
        return unsupported(param or "a field")
    if fault["type"] in ("json_invalid", "missing") and param is None:
        return invalid("the body is no valid JSON")
    more = f" (and {len(others)} more faults)" if others else ""
    return invalid(f"{param or 'the request'}: {fault['msg'][:500]}{more}", param)


def _from_http(error: HTTPException) -> ApiError:
    if isinstance(error.__cause__, ApiError):  # raised while FastAPI read the body
        return error.__cause__
    code = _CODES.get(error.status_code, "invalid_request" if error.status_code < 500 else "internal")
    message = error.detail if error.status_code not in (404, 405) else "there is no such address or method here"
    return ApiError(error.status_code, code, message, headers=error.headers)


def install_errors(app: FastAPI) -> None:
    """Let every error leave an app in the same shape; `Guard` does it for bugs and faults of the machine."""

    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, RequestValidationError):
            found = _from_validation(error)
        elif isinstance(error, HTTPException):
            found = _from_http(error)
        else:
            found = api_error(error)
        request.app.state.context.metrics.rejected(found.code)
        return found.response()

    for kind in (ApiError, HourLlavaError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)
