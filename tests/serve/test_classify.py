from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import special

from live import Live, form, serving
from torchstone.core.contracts import ImageSet
from torchstone.core.values import Candidate
from torchstone.evaluate.predict import answer

BLOCKED = (
    "torch", "torchvision", "timm", "torch_pruning", "onnx", "nncf", "polars", "sklearn", "scipy", "matplotlib",
)  # fmt: skip


def encoded(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def test_however_an_image_comes_the_answer_is_the_same(server: Live, pictures: list[bytes]) -> None:
    picture = pictures[0]
    body, kind = form([("image", "digit.png", picture)])
    ways = [
        (picture, "image/png"),
        (picture, "application/octet-stream"),
        (picture, "application/x-www-form-urlencoded"),  # what curl says unasked
        (body, kind),
        (json.dumps({"image": encoded(picture)}), "application/json"),
        (json.dumps({"images": [encoded(picture)]}), "application/json; charset=utf-8"),
        (json.dumps({"image": "data:image/png;base64," + encoded(picture)}), "application/json"),
    ]
    answers = []
    for content, name in ways:
        reply = server.ask("/v1/classify", content, content_type=name)
        assert reply.status == 200, (name, reply.content)
        assert reply.headers["content-type"] == "application/json"
        (prediction,) = reply.json["predictions"]
        answers.append(prediction)
    assert all(one["top"] == answers[0]["top"] for one in answers)
    assert len({one["id"] for one in answers}) == len(answers)
    assert [one["id"][:12] for one in answers] == sorted(one["id"][:12] for one in answers)  # milliseconds
    assert set(answers[0]["milliseconds"]) == {"queue", "decode", "infer"}
    shares = [row["probability"] for row in answers[0]["top"]]
    assert shares == sorted(shares, reverse=True)
    assert len(shares) == 5


def test_several_images_come_back_in_their_order(server: Live, pictures: list[bytes]) -> None:
    alone = [server.classify(picture)[0]["top"][0] for picture in pictures[:6]]
    body, kind = form([(f"file{row}", f"{row}.png", picture) for row, picture in enumerate(pictures[:6])])
    together = [one["top"][0] for one in server.classify(body, content_type=kind)]
    by_json = json.dumps({"images": [encoded(picture) for picture in pictures[:6]]}).encode()
    again = [one["top"][0] for one in server.classify(by_json, content_type="application/json")]
    for found in (together, again):
        assert [one["label"] for one in found] == [one["label"] for one in alone]
        assert np.allclose([one["probability"] for one in found], [one["probability"] for one in alone], atol=1e-5)


def test_of_several_images_the_one_that_is_none_is_named(server: Live, pictures: list[bytes]) -> None:
    several = [encoded(pictures[0]), encoded(b"no image"), encoded(pictures[1])]
    reply = server.ask("/v1/classify", json.dumps({"images": several}), content_type="application/json")
    assert reply.status == 422
    assert reply.json["error"]["message"].startswith("image 1: not an image")


def test_how_many_classes_is_the_clients_choice(server: Live, pictures: list[bytes]) -> None:
    body, kind = form([("image", "a.png", pictures[0]), ("top", None, b"2")])
    assert len(server.classify(body, content_type=kind)[0]["top"]) == 2
    reply = server.ask("/v1/classify?top=3", pictures[0])
    assert len(reply.json["predictions"][0]["top"]) == 3
    rows = server.ask("/v1/classify?top=1000", pictures[0]).json["predictions"][0]["top"]
    assert len(rows) == 10
    assert sum(row["probability"] for row in rows) == pytest.approx(1.0, abs=1e-6)


def test_every_test_image_is_answered_as_the_evaluation_did(
    server: Live, exported: dict[str, Candidate], seen: ImageSet
) -> None:
    """In FP32 to 1e-5, though the evaluation ran batches of 32 and the server whatever came together."""
    expected = special.softmax(answer(exported["onnx"], seen, "test").scores, axis=1)
    assert len(expected) > 500
    found = served_probabilities(server, seen)
    assert np.abs(found - expected).max() < 1e-5
    assert (found.argmax(1) == expected.argmax(1)).all()


def test_int8_is_answered_as_the_evaluation_did_but_for_near_ties(
    quantised: Path, exported: dict[str, Candidate], seen: ImageSet
) -> None:
    expected = special.softmax(answer(exported["int8@openvino"], seen, "test").scores, axis=1)
    with serving(quantised) as live:
        found = served_probabilities(live, seen)
    assert np.abs(found - expected).max() < 1e-2
    other = found.argmax(1) != expected.argmax(1)
    ordered = np.sort(expected, axis=1)
    assert (ordered[other, -1] - ordered[other, -2] < 2e-2).all()


def served_probabilities(live: Live, images: ImageSet) -> np.ndarray:
    """float32[n, C] over HTTP, 32 images a request."""
    rows = []
    for start in range(0, len(images), 32):
        group = range(start, min(start + 32, len(images)))
        body, kind = form([("image", "a.png", images.encoded(row)) for row in group])
        reply = live.ask("/v1/classify?top=10", body, content_type=kind)
        assert reply.status == 200, reply.content
        for prediction in reply.json["predictions"]:
            row = np.zeros(10, np.float32)
            for one in prediction["top"]:
                row[one["index"]] = one["probability"]
            rows.append(row)
    return np.stack(rows)


def test_health_and_what_is_served(server: Live) -> None:
    assert server.ask("/healthz").json == {"status": "ok"}
    assert server.ask("/readyz").status == 200
    (model,) = server.ask("/v1/models").json["models"]
    assert (model["name"], model["image_size"], len(model["labels"])) == ("digits", 32, 10)
    assert model["largest_batch"] >= 1


def test_several_bundles_are_served_by_name(digits: Path, quantised: Path, pictures: list[bytes]) -> None:
    with serving(digits, f"small={quantised}", "--max-batch", "4") as live:
        first = live.ask("/v1/classify", pictures[0]).json
        other = live.ask("/v1/classify?model=small", pictures[0]).json
        assert (first["model"], other["model"]) == ("digits", "small")
        assert first["predictions"][0]["bundle"] != other["predictions"][0]["bundle"]
        reply = live.ask("/v1/classify?model=smal", pictures[0])
        assert (reply.status, reply.json["error"]["hint"]) == (404, "did you mean 'small'?")


def test_it_serves_where_nothing_heavy_can_be_imported(digits: Path, pictures: list[bytes], tmp_path: Path) -> None:
    """In both processes: a sitecustomize that makes each of these imports fail."""
    lines = [f"import sys\nfor name in {BLOCKED!r}: sys.modules[name] = None\n"]
    (tmp_path / "sitecustomize.py").write_text("".join(lines))
    path = ":".join([str(tmp_path), *([p] if (p := __import__("os").environ.get("PYTHONPATH")) else [])])
    with serving(digits, env={"PYTHONPATH": path}) as live:
        assert live.classify(pictures[0])


def test_without_uvloop_and_httptools_it_works_too(digits: Path, pictures: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util, sys\n"
        "for name in ('uvloop', 'httptools'): sys.modules[name] = None\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, package=None: None if name in ('uvloop', 'httptools') "
        "else real(name, package)\n"
    )
    path = ":".join([str(tmp_path), *([p] if (p := __import__("os").environ.get("PYTHONPATH")) else [])])
    with serving(digits, env={"PYTHONPATH": path}) as live:
        assert live.classify(pictures[0])
        assert live.ask("/v1/classify", b"").status == 400
