"""TensorFlow Serving's REST interface, as text: requests to arrays, arrays to responses.

https://www.tensorflow.org/tfx/serving/api_rest
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from export.served_model import ServedModel

_DEFAULT_SIGNATURE = "serving_default"
_BINARY = "b64"


class BadRequest(Exception):
    """A request that the client can mend; the message says how.

    Attributes:
      status: HTTP status.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Request:
    """What a client asks.

    Attributes:
      signature: Name of the signature.
      inputs: Values of each input, all of the same number.
      by_row: Whether values came as `instances`, and so the answers go as `predictions`.
    """

    signature: str
    inputs: dict[str, list[Any]]
    by_row: bool


def parse(body: bytes, model: ServedModel, *, max_images: int) -> Request:
    """Reads the body of a predict request.

    Raises:
      BadRequest: It is none.
    """
    content = _json(body)
    signature = content.get("signature_name") or _DEFAULT_SIGNATURE
    if not isinstance(signature, str) or signature not in model.signatures:
        raise BadRequest(f"signature_name is {signature!r}; expected one of {', '.join(model.signatures)}.")
    if ("instances" in content) == ("inputs" in content):
        raise BadRequest('expected either "instances", a list of rows, or "inputs", a list for each input.')
    specs = model.inputs(signature)
    by_row = "instances" in content
    columns = _columns_of_rows(content["instances"], specs) if by_row else _columns(content["inputs"], specs)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise BadRequest(f"the inputs have {lengths} values; expected as many of each.")
    if not 1 <= min(lengths.values()) <= max_images:
        raise BadRequest(f"the request has {min(lengths.values())} pictures; expected 1 to {max_images}.")
    inputs = {name: _values(name, values, specs[name].dtype) for name, values in columns.items()}
    return Request(signature, inputs, by_row)


def _json(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise BadRequest('the body is no JSON object; expected {"instances": [...]}.')
    return content


def _columns_of_rows(rows: Any, specs: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Turns a list of rows into a list for each input; a row of one input may be the bare value."""
    if not isinstance(rows, list):
        raise BadRequest('"instances" is no list; expected a list of rows.')
    if len(specs) == 1:
        [name] = specs
        return {name: [row[name] if isinstance(row, dict) and list(row) == [name] else row for row in rows]}
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != specs.keys():
            raise BadRequest(f"instance {number} is not an object of {_listed(specs)}.")
    return {name: [row[name] for row in rows] for name in specs}


def _columns(inputs: Any, specs: Mapping[str, Any]) -> dict[str, list[Any]]:
    if isinstance(inputs, list) and len(specs) == 1:
        return dict.fromkeys(specs, inputs)
    if not isinstance(inputs, dict) or inputs.keys() != specs.keys():
        raise BadRequest(f'"inputs" is not an object of {_listed(specs)}.')
    for name, values in inputs.items():
        if not isinstance(values, list):
            raise BadRequest(f"{name} is no list; expected a list of values.")
    return inputs


def _listed(specs: Mapping[str, Any]) -> str:
    return " and ".join(f'"{name}"' for name in specs)


def _values(name: str, values: Sequence[Any], dtype: tf.DType) -> list[Any]:
    read = _binary if dtype == tf.string else _whole_number
    return [read(value, f"{name} {number}") for number, value in enumerate(values)]


def _binary(value: Any, where: str) -> bytes:
    if not isinstance(value, dict) or list(value) != [_BINARY] or not isinstance(value[_BINARY], str):
        raise BadRequest(f'{where} is no picture; expected {{"b64": "..."}} with the file in base64.')
    try:
        return base64.b64decode(value[_BINARY], validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"{where} is not in base64: {error}.") from None


def _whole_number(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 31:
        raise BadRequest(f"{where} is {json.dumps(value)[:40]}; expected a whole number from 0.")
    return value


def response(outputs: Mapping[str, np.ndarray], *, by_row: bool) -> dict[str, Any]:
    """Returns the answer to a predict request."""
    plain = {name: _plain(values) for name, values in outputs.items()}
    if not by_row:
        return {"outputs": plain}
    return {"predictions": [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]}


def _plain(values: np.ndarray) -> list[Any]:
    found: list[Any] = (
        np.char.decode(values.astype(bytes), "utf-8").tolist() if values.dtype == object else values.tolist()
    )
    return found


def status(model: ServedModel) -> dict[str, Any]:
    """Returns the state of a model."""
    fine = {"error_code": "OK", "error_message": ""}
    return {"model_version_status": [{"version": model.version, "state": "AVAILABLE", "status": fine}]}


def metadata(model: ServedModel) -> dict[str, Any]:
    """Returns the signatures of a model."""
    definitions = {
        name: {
            "inputs": {key: _tensor_info(spec) for key, spec in model.inputs(name).items()},
            "outputs": {key: _tensor_info(spec) for key, spec in model.outputs(name).items()},
            "method_name": "tensorflow/serving/predict",
        }
        for name in model.signatures
    }
    spec = {"name": model.name, "signature_name": "", "version": model.version}
    return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": definitions}}}


def _tensor_info(spec: tf.TensorSpec) -> dict[str, Any]:
    sizes = [{"size": str(-1 if size is None else size), "name": ""} for size in spec.shape]
    dtype = tf.dtypes.as_dtype(spec.dtype)
    return {
        "dtype": f"DT_{dtype.name.upper()}",
        "tensor_shape": {"dim": sizes, "unknown_rank": False},
        "name": spec.name,
    }
