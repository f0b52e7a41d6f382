"""One self-contained HTML page about a run on its validation split."""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import simplejpeg

from export import calibration, findings, outcomes, pictures, reliability, templates
from export.outcomes import Outcomes
from model import evaluator
from model.run import Run
from pipeline import decode, files, schema
from pipeline.manifest import Manifest

_PAIRS, _CATEGORIES, _ERRORS, _UNREADABLE = 12, 25, 30, 100
_VIEWS = 3  # Pictures shown of a product.
_SHOWN_SIZE = 180
_KEPT_BYTES = 24 << 10  # A larger picture is drawn again, smaller, so that the page stays below a few MB.
_CURVE_POINTS = 150
_KINDS = ((b"\x89PNG", "png"), (b"GIF8", "gif"), (b"BM", "bmp"))


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
      path: The page.
      products: Number of validation products.
      accuracy: Share of products whose category is right.
      calibration_error: Expected calibration error, in [0, 1].
    """

    path: str
    products: int
    accuracy: float
    calibration_error: float


class Shown(NamedTuple):
    """A wrong answer with its pictures.

    Attributes:
      product_id: The product.
      label: Its true category.
      predicted: The answer.
      confidence: The answer's probability.
      images: Data URIs of its first pictures.
      more: Number of pictures that are not shown.
    """

    product_id: int
    label: int
    predicted: int
    confidence: float
    images: list[str]
    more: int


class Unreadable(NamedTuple):
    """An image that cannot be read.

    Attributes:
      product_id: The product.
      number: Number of the image in the product, from 1.
      images: Number of the product's images.
      reason: What is wrong with it.
    """

    product_id: int
    number: int
    images: int
    reason: str


def write(path: str, run: Run, data: Manifest, *, calibrated: bool = True) -> Report:
    """Writes the page.

    Memory: 28 bytes a validation product, some 50 more while errors are sorted,
    and what a batch takes.

    Args:
      path: Where the page goes.
      run: A run with a checkpoint.
      data: A dataset with a validation split and the run's category tree.
      calibrated: Whether to apply the temperature that was fitted.

    Raises:
      UserError: The run has no checkpoint, or the data does not fit it.
    """
    classifier, checkpoint, temperature = calibration.trained(run, calibrated=calibrated)
    found, accuracy = outcomes.collect(run, classifier, data)
    content = _content(run, data, found, accuracy)
    page = templates.render(
        "report.html", **content, run=run, data=data, checkpoint=os.path.basename(checkpoint), temperature=temperature
    )
    files.write(path, [page.encode()])
    return Report(path, len(found.product_id), float(found.right.mean()), content["calibration_error"])


def _content(run: Run, data: Manifest, found: Outcomes, accuracy: dict[str, Any]) -> dict[str, Any]:
    """Returns the values of the template."""
    pairs = findings.confused_pairs(found, run.tree.num_categories)
    errors = findings.worst_errors(found, _ERRORS)
    examples = np.array([pair.example for pair in pairs[:_PAIRS]], np.int64)
    missing = np.flatnonzero(found.readable < found.images)
    needed = found.product_id[np.concatenate([errors, examples, missing[:_UNREADABLE]])]
    encoded = pictures.of_products(data, split=schema.VALIDATION, product_ids=needed.tolist())
    selection = reliability.Selection(found.confidence, found.right)
    bins = reliability.bins(found.confidence, found.right)
    return {
        "accuracy": accuracy,
        "most_frequent": evaluator.most_frequent_share(run),
        "products": len(found.product_id),
        "bins": bins,
        "calibration_error": reliability.expected_calibration_error(bins),
        "mean_confidence": float(found.confidence.mean()),
        "selection": selection,
        "curve": selection.curve(_CURVE_POINTS),
        "steps": [selection.at(percent / 100) for percent in range(101)],
        "pairs": list(zip(pairs, _shown(found, examples, encoded), strict=False)),
        "all_pairs": len(pairs),
        "worst": findings.worst_categories(found, pairs, run.tree.num_categories)[:_CATEGORIES],
        "errors": _shown(found, errors, encoded),
        "all_errors": int((~found.right).sum()),
        "unreadable": _unreadable(found, missing[:_UNREADABLE], encoded),
        "unreadable_images": int((found.images - found.readable).sum()),
        "products_with_unreadable": len(missing),
    }


def _shown(found: Outcomes, rows: np.ndarray, encoded: dict[int, list[bytes]]) -> list[Shown]:
    shown = []
    for row in rows.tolist():
        product_id = int(found.product_id[row])
        own = [uri for uri in map(_data_uri, encoded[product_id][: 2 * _VIEWS]) if uri][:_VIEWS]
        answer = (int(found.label[row]), int(found.predicted[row]), float(found.confidence[row]))
        shown.append(Shown(product_id, *answer, own, int(found.images[row]) - len(own)))
    return shown


def _data_uri(data: bytes) -> str | None:
    """Returns a picture as an address that holds it, or None where it cannot be read."""
    picture = np.empty((_SHOWN_SIZE, _SHOWN_SIZE, 3), np.uint8)
    try:
        decode.decode_into(data, picture)
    except decode.UnreadableImage:
        return None
    kind = next((kind for begin, kind in _KINDS if data.startswith(begin)), "jpeg")
    if len(data) > _KEPT_BYTES:
        kind, data = "jpeg", bytes(simplejpeg.encode_jpeg(picture, quality=80))
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _unreadable(found: Outcomes, rows: np.ndarray, encoded: dict[int, list[bytes]]) -> list[Unreadable]:
    listed = []
    for product_id in found.product_id[rows].tolist():
        own = encoded[product_id]
        reasons = _reasons(own)
        listed += [Unreadable(product_id, number + 1, len(own), reason) for number, reason in reasons if reason]
    return listed


def _reasons(images: Sequence[bytes]) -> list[tuple[int, str | None]]:
    """Returns why each image cannot be read, or None where it can."""
    reasons: list[tuple[int, str | None]] = []
    picture = np.empty((_SHOWN_SIZE, _SHOWN_SIZE, 3), np.uint8)
    for number, data in enumerate(images):
        try:
            decode.decode_into(data, picture)
            reasons.append((number, None))
        except decode.UnreadableImage as error:
            reasons.append((number, f"{error} ({len(data):,} bytes)"))
    return reasons
