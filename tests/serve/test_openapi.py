"""/openapi.json says what the routes read, and what is made of it by chance is never a mistake of ours."""

import time

import httpx
import pytest
from starlette.testclient import TestClient

from rwkv_engine.serve.app import PATHS, make_app
from rwkv_engine.serve.endpoints import Takes
from rwkv_engine.serve.planning import Limits
from rwkv_engine.serve.server import Server, Settings
from rwkv_engine.serve.web import show

REFUSED = {"message", "type", "param", "code"}


def made(**settings):
    """The document of a server without a model."""
    server = Server(Settings(sources={"small": None}, **settings), lambda source: None, lambda source: 1)
    return TestClient(make_app(server), base_url="http://127.0.0.1").get("/openapi.json").json()


def test_every_route_but_the_page_is_in_the_document():
    told = {(m.upper(), path) for path, methods in made()["paths"].items() for m in methods}
    assert told == {(m, p.replace(":path}", "}")) for m, p, endpoint in PATHS if endpoint is not show}


@pytest.fixture(scope="module")
def web(served):
    """A client of the server."""
    with httpx.Client(base_url=served[1], timeout=60) as client:
        yield client


@pytest.mark.parametrize("path", [path for _, path, endpoint in PATHS if isinstance(endpoint, Takes)])
def test_a_field_is_known_to_a_route_where_the_document_has_it(web, path):
    document = web.get("/openapi.json").json()
    reference = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schema = document["components"]["schemas"][reference["$ref"].rpartition("/")[2]]
    assert schema["additionalProperties"] is False and "model" in schema["required"]

    def told(body):
        error = web.post(path, json=body).json()["error"]
        return error if isinstance(error, str) else error["message"]

    for field in schema["properties"]:
        assert "Unknown parameter" not in told({field: {"no": ["such", "value"]}}), field
    least = {name: "small" for name in schema["required"]}
    for name in least:
        left = {other: value for other, value in least.items() if other != name}
        assert told(left) == f"Missing required parameter: '{name}'."


def test_the_document_asks_for_a_key_where_the_server_does():
    assert "security" not in made()
    assert made(keys=("a-long-key",))["security"] == [{"key": []}]


@pytest.mark.parametrize(
    "path, body, param",
    [
        ("/api/chat", {"messages": [{"role": "user", "content": "x"}], "options": {"presence_penalty": 3}}, "presence_penalty"),
        ("/v1/responses", {"input": [{"type": "reasoning", "summary": []}]}, "messages"),
    ],
)  # fmt: skip
def test_what_is_well_formed_and_means_nothing_is_refused(web, path, body, param):
    answer = web.post(path, json={"model": "small", **body})
    assert answer.status_code == 400
    if path.startswith("/v1"):
        assert answer.json()["error"]["param"] == param
    else:
        assert param in answer.json()["error"]


@pytest.mark.parametrize("count", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_requests_made_of_the_document_are_answered_or_refused_and_in_time(embedded, serve, count):
    schemathesis = pytest.importorskip("schemathesis")
    hypothesis = pytest.importorskip("hypothesis")
    with serve(embedded, limits=Limits(tokens=4, sequences=8, patience=5)) as (_, address):
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        mode = schemathesis.GenerationMode
        seen = []
        for operation in operations:
            cases = operation.as_strategy(generation_mode=mode.POSITIVE)
            if operation.method == "POST":
                cases |= operation.as_strategy(generation_mode=mode.NEGATIVE)

            @hypothesis.settings(
                max_examples=count // len(operations) + 1,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            @hypothesis.given(case=cases)
            def asked(case):
                if isinstance(case.body, dict) and "model" in case.body:
                    case.body["model"] = "small"
                begun = time.monotonic()
                answer = case.call(timeout=30)
                assert answer.status_code < 500, answer.text
                assert time.monotonic() - begun < 20
                if answer.status_code >= 400 and answer.headers["content-type"] == "application/json":
                    error = answer.json()["error"]
                    assert isinstance(error, str) if "/api/" in case.operation.path else set(error) == REFUSED
                seen.append(answer.status_code)

            asked()
    assert len(seen) >= min(count, 200) // 2 and {200, 400} <= set(seen)
