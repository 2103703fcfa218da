from __future__ import annotations

import json

import pytest

from live import Live
from torchstone.serve.refusals import CODES


def test_the_document_says_what_is_there(server: Live) -> None:
    document = server.ask("/openapi.json").json
    assert document["openapi"].startswith("3.1")
    for path in ("/v1/classify", "/healthz", "/readyz", "/v2/models/{name}/infer", "/v1/reload"):
        assert path in document["paths"], path
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))
    for path in document["paths"].values():
        for operation in path.values():
            assert {str(code) for code in CODES.values()} <= set(operation["responses"])


def test_every_path_of_the_document_answers(server: Live) -> None:
    for path, methods in server.ask("/openapi.json").json["paths"].items():
        for method in methods:
            reply = server.ask(path.replace("{name}", "digits").replace("{version}", "1"), method=method.upper())
            assert reply.status not in (405, 500), (path, method)


def test_what_the_document_allows_is_answered_as_it_says(server: Live) -> None:
    """schemathesis makes requests from the document, right ones and wrong ones, and holds the answers against it."""
    schemathesis = pytest.importorskip("schemathesis")
    import hypothesis

    document = json.loads(server.ask("/openapi.json").content)
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=f"http://{server.host}:{server.port}")
    slow = (
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.filter_too_much,
        hypothesis.HealthCheck.data_too_large,
    )
    checked = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @hypothesis.settings(max_examples=25, deadline=None, suppress_health_check=slow)
        @hypothesis.given(case=operation.as_strategy())
        def check(case) -> None:
            response = case.call_and_validate(
                checks=[
                    schemathesis.checks.CHECKS.get_one("response_schema_conformance"),
                    schemathesis.checks.CHECKS.get_one("content_type_conformance"),
                    schemathesis.checks.CHECKS.get_one("status_code_conformance"),
                ]
            )
            assert response.status_code not in (500, 503)  # 504 is what a request of a microsecond asks for

        check()
        checked += 1
    assert checked >= 8
