"""Tests of the server: TensorFlow Serving's requests and answers, its limits, its page."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from export import server
from export.served_model import ServedModel
from export.server import Limits
from model.run import Run
from tools import synthetic_pictures

_PREDICT = "/v1/models/shop:predict"
_LIMITS = Limits(body_bytes=1 << 20, images=5)


@pytest.fixture(scope="module")
def client(model_folder: Path) -> Iterator[TestClient]:
    model = ServedModel.load(str(model_folder), name="shop")
    with TestClient(server.application(model, _LIMITS), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def jpeg(trained_run: Run) -> dict[str, str]:
    picture = synthetic_pictures.draw(trained_run.tree.paths[3], product=1, view=0, seed=0)
    return {"b64": base64.b64encode(picture).decode()}


_BROKEN = {"b64": base64.b64encode(b"no picture").decode()}


def _post(client: TestClient, body: Any, path: str = _PREDICT) -> Any:
    response = client.post(path, content=body if isinstance(body, bytes) else json.dumps(body))
    assert response.status_code == 200, response.text
    return response.json()


def test_the_state_of_the_model_has_the_shape_of_tensorflow_serving(client: TestClient) -> None:
    expected = {
        "model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }
    assert client.get("/v1/models/shop").json() == expected
    assert client.get("/v1/models/shop/versions/1").json() == expected


def test_the_metadata_name_the_signatures(client: TestClient) -> None:
    content = client.get("/v1/models/shop/metadata").json()
    assert content["model_spec"] == {"name": "shop", "signature_name": "", "version": "1"}
    signatures = content["metadata"]["signature_def"]["signature_def"]
    assert signatures["products"]["inputs"]["product"]["dtype"] == "DT_INT32"
    assert signatures["serving_default"]["inputs"]["image_bytes"]["dtype"] == "DT_STRING"
    sizes = signatures["serving_default"]["outputs"]["probabilities"]["tensor_shape"]["dim"]
    assert [size["size"] for size in sizes] == ["-1", "4"]


def test_rows_are_answered_with_rows(client: TestClient, jpeg: dict[str, str], trained_run: Run) -> None:
    first, second = _post(client, {"instances": [jpeg, {"image_bytes": _BROKEN}]})["predictions"]
    assert first.keys() == {"category_ids", "category_names", "category_paths", "probabilities", "readable_images"}
    tree = trained_run.tree
    paths = [tree.paths[tree.label_of[category_id]] for category_id in first["category_ids"]]
    assert first["category_paths"] == [" > ".join(path) for path in paths]
    assert first["category_names"] == [path[-1] for path in paths]
    assert first["probabilities"] == sorted(first["probabilities"], reverse=True)
    assert (first["readable_images"], second["readable_images"]) == (1, 0)
    assert second["category_ids"][0] == tree.category_ids[int(trained_run.prior.argmax())]


def test_columns_are_answered_with_columns(client: TestClient, jpeg: dict[str, str]) -> None:
    rows = _post(client, {"instances": [jpeg, _BROKEN]})["predictions"]
    columns = _post(client, {"signature_name": "serving_default", "inputs": {"image_bytes": [jpeg, _BROKEN]}})[
        "outputs"
    ]
    assert columns == {name: [row[name] for row in rows] for name in rows[0]}
    assert _post(client, {"inputs": [jpeg, _BROKEN]})["outputs"] == columns
    assert _post(client, {"inputs": [jpeg, _BROKEN]}, "/v1/models/shop/versions/1:predict")["outputs"] == columns


def test_pictures_of_a_product_are_answered_together(client: TestClient, jpeg: dict[str, str]) -> None:
    request = {"signature_name": "products", "inputs": {"image_bytes": [jpeg, _BROKEN, jpeg], "product": [0, 1, 0]}}
    columns = _post(client, request)["outputs"]
    assert columns["readable_images"] == [2, 0]
    [alone] = _post(client, {"instances": [jpeg]})["predictions"]
    assert columns["probabilities"][0] == pytest.approx(alone["probabilities"], abs=1e-6)
    by_row = [{"image_bytes": picture, "product": number} for picture, number in ((jpeg, 0), (_BROKEN, 1), (jpeg, 0))]
    rows = _post(client, {"signature_name": "products", "instances": by_row})["predictions"]
    assert [row["category_ids"] for row in rows] == columns["category_ids"]


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe{}", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "no JSON object"),
        ({}, "either"),
        ({"instances": [_BROKEN], "inputs": [_BROKEN]}, "either"),
        ({"instances": {}}, "no list"),
        ({"instances": []}, "0 pictures; expected 1 to 5"),
        ({"instances": [_BROKEN] * 6}, "6 pictures; expected 1 to 5"),
        ({"instances": ["text"]}, "image_bytes 0 is no picture"),
        ({"instances": [_BROKEN, {"b64": "a"}]}, "image_bytes 1 is not in base64"),
        ({"instances": [{"b64": "%%%%"}]}, "not in base64"),
        ({"instances": [{"b64": "é"}]}, "not in base64"),
        ({"instances": [{"b64": 7}]}, "no picture"),
        ({"instances": [_BROKEN], "signature_name": "other"}, "signature_name is 'other'"),
        ({"instances": [_BROKEN], "signature_name": ["x"]}, "signature_name is"),
        ({"instances": [_BROKEN], "signature_name": "products"}, "instance 0 is not an object"),
        ({"inputs": {"image_bytes": [_BROKEN]}, "signature_name": "products"}, '"inputs" is not an object'),
        ({"inputs": {"image_bytes": _BROKEN, "product": [0]}, "signature_name": "products"}, "image_bytes is no list"),
        ({"inputs": {"image_bytes": [_BROKEN], "product": [0, 0]}, "signature_name": "products"}, "as many of each"),
        ({"inputs": {"image_bytes": [_BROKEN], "product": [-1]}, "signature_name": "products"}, "whole number"),
        ({"inputs": {"image_bytes": [_BROKEN], "product": [1 << 40]}, "signature_name": "products"}, "whole number"),
        ({"inputs": {"image_bytes": [_BROKEN], "product": [True]}, "signature_name": "products"}, "whole number"),
        ({"inputs": {"image_bytes": [_BROKEN], "product": [3]}, "signature_name": "products"}, "numbered from 0"),
    ],
)
def test_a_request_that_is_none_is_told_why(client: TestClient, body: Any, shown: str) -> None:
    response = client.post(_PREDICT, content=body if isinstance(body, bytes) else json.dumps(body))
    assert response.status_code == 400
    assert response.json().keys() == {"error"}
    assert shown in response.json()["error"]


def test_a_body_beyond_the_limit_is_refused_and_told_why(client: TestClient) -> None:
    body = json.dumps({"instances": [{"b64": "A" * (1 << 20)}]})
    for content in (body, (piece.encode() for piece in (body[:9999], body[9999:]))):  # With and without a length.
        response = client.post(_PREDICT, content=content)
        assert response.status_code == 413
        assert "larger than 1 MiB" in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "shown"),
    [
        ("GET", "/v1/models/other", 404, "/v1/models/shop"),
        ("POST", "/v1/models/other:predict", 404, "/v1/models/shop"),
        ("GET", "/v1/models/shop/versions/2", 404, "version 1"),
        ("GET", _PREDICT, 405, "POST"),
        ("PUT", "/v1/models/shop", 405, "GET"),
    ],
)
def test_other_addresses_are_refused(client: TestClient, method: str, path: str, status: int, shown: str) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert shown in response.json()["error"]


def test_the_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    response = client.get("/")
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert 'data-predict="v1/models/shop:predict"' in response.text
    assert not re.search(r"https?://(?!www\.w3\.org)", response.text)
    assert "innerHTML" not in response.text
