"""`Problem`: what a client is told when its request is refused, in the form of OpenAI's API."""

from typing import Any

from rwkv_engine.errors import EngineError, StateError, brief

#: by status, what OpenAI calls the kind of an error; any other status is a "server_error"
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
}


class Problem(Exception):
    """A refusal: an HTTP status and one sentence.

    param  the field that it is about.    code  a word for programs.    after  seconds after which to try
           again.
    """

    def __init__(
        self,
        status: int,
        sentence: str,
        *,
        param: str | None = None,
        code: str | None = None,
        after: int | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status, self.param, self.code, self.after = status, param, code, after

    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        kind = TYPES.get(self.status, "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def problem_of(error: EngineError) -> Problem:
    """What a client is told of an error of the engine's that its request caused. It names no file."""
    if error.path is not None and not isinstance(error, StateError):
        return Problem(500, "the model cannot be used; the server's log says why", code="model_error")
    return Problem(400, brief(error, 500), param=error.name, code="invalid_value")
