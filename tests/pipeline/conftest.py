"""What tests of the pipeline share: datasets of a few products of one's own."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import bson
import pytest

from pipeline import shard_job
from pipeline.manifest import Manifest
from pipeline.shard_config import ShardConfig
from tools import synthetic_pictures


@pytest.fixture(scope="session")
def picture() -> Callable[[int], bytes]:
    """Function that draws a JPEG, another one for each number."""
    return lambda number: synthetic_pictures.draw(("A", "B", str(number % 5)), product=number, view=0, seed=0)


@pytest.fixture(scope="session")
def shard_products() -> Callable[..., Manifest]:
    """Function that makes a dataset in a folder of encoded pictures by product id."""

    def make(
        folder: Path, products: Mapping[int, Sequence[bytes]], *, category_id: int | None = 1, **options: object
    ) -> Manifest:
        labelled = {} if category_id is None else {"category_id": category_id}
        documents = [
            {"_id": product_id, "imgs": [{"picture": data} for data in pictures]} | labelled
            for product_id, pictures in products.items()
        ]
        (folder / "a.bson").write_bytes(b"".join(map(bson.encode, documents)))
        config = {"inputs": (str(folder / "a.bson"),), "output": str(folder / "shards"), **options}
        return shard_job.run(ShardConfig(**config))  # type: ignore[arg-type]

    return make
