"""The encoded pictures of chosen products, read back from the shards."""

from collections.abc import Iterable

import numpy as np

from pipeline.image_reader import ImageReader
from pipeline.manifest import Manifest


def of_products(data: Manifest, *, split: str, product_ids: Iterable[int]) -> dict[int, list[bytes]]:
    """Returns the pictures of products, as they stand in their records, by product id.

    Args:
      data: A dataset.
      split: Name of the split.
      product_ids: Ids; those which the split does not hold are left out.
    """
    reader = ImageReader(data, split)
    products = np.flatnonzero(np.isin(reader.product_id, np.fromiter(product_ids, np.int64)))
    pictures = map(bytes, reader.read(reader.images_of(products)))
    return {
        int(reader.product_id[product]): [next(pictures) for _ in range(reader.num_images[product])]
        for product in products
    }
