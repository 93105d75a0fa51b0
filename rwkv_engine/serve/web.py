"""The web page at `/`: files that are sent as they are, with headers that let nothing else in."""

from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from rwkv_engine.serve.problems import Problem

KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
#: scripts and styles only from files of this server, and no text that becomes HTML
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


@cache
def page() -> dict[str, Response]:
    """The page's answers by path. They hold no secret: no key is needed for them."""
    found = {}
    for file in (files("rwkv_engine.serve") / "page").iterdir():
        kind = KINDS.get(file.name.rpartition(".")[2])
        if kind is not None:
            path = "/" if file.name == "index.html" else f"/page/{file.name}"
            found[path] = Response(file.read_bytes(), headers=HEADERS, media_type=kind)
    return found


async def show(request: Request) -> Response:
    """/ and /page/{file}"""
    found = page().get(request.scope["path"])
    if found is None:
        raise Problem(404, "There is no such path here.", code="not_found")
    return found
