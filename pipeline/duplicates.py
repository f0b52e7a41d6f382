"""Products that share an image, by the digests of their images: for splits that keep them together."""

import io

import numpy as np
import xxhash

from pipeline import files, layout, records
from pipeline.pieces import PieceReader, Pieces
from pipeline.shard_config import WorkFolder


class Digester:
    """Reads documents and writes the digests of their images.

    Args:
      output: Folder of the finished dataset, whose work folder holds the pieces.
    """

    def __init__(self, output: str) -> None:
        self._work = WorkFolder(output)
        identity = files.read_json(self._work.job)
        self._fields = records.Fields(**identity["fields"])
        self._reader = PieceReader(files.read_json(self._work.dumps))

    def write(self, task: int) -> None:
        """Writes the digests of the documents of one task; does nothing where they are there."""
        path = self._work.digests(task)
        if files.exists(path):
            return
        data, boundaries = self._reader.read(Pieces.load(self._work.digest_pieces(task)))
        # The products of documents that make none have no images; the write stage refuses them by name.
        products, _ = layout.read(data, boundaries[:-1], boundaries[1:], self._fields)
        content = io.BytesIO()
        np.savez(content, counts=products.num_images.astype(np.int32), digests=digests(data, products))
        files.write(path, [content.getvalue()])


def digests(data: memoryview, products: layout.Products) -> np.ndarray:
    """Returns the XXH3 (64 bits) of each picture of products in a buffer: uint64 of the shape of their starts."""
    pictures = zip(products.starts.tolist(), products.ends.tolist(), strict=True)
    return np.fromiter((xxhash.xxh3_64_intdigest(data[start:end]) for start, end in pictures), np.uint64)


def load(work: WorkFolder, tasks: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the number of images of each document, and the digests of all images in their order."""
    found = []
    for task in range(tasks):
        with np.load(io.BytesIO(files.read(work.digests(task)))) as content:
            found.append((content["counts"], content["digests"]))
    counts, digests = map(np.concatenate, zip(*found, strict=True))
    return counts, digests


def clusters(counts: np.ndarray, digests: np.ndarray) -> np.ndarray:
    """Returns the cluster of each product: products that share an image, directly or through others, are in one.

    Every product takes the lowest label among all with an image of its own,
    again and again until none changes; jumping to the label's own label makes
    long chains short (Shiloach and Vishkin, "An O(log n) parallel connectivity
    algorithm", 1982). Costs 40 bytes of memory for each image.

    Args:
      counts: Number of images of each product: integers of shape (products,).
      digests: Digest of each image: uint64 of shape (sum of counts,).

    Returns:
      The position of the first product of each product's cluster: int64 of
      shape (products,).
    """
    owners = np.repeat(np.arange(len(counts)), counts)
    _, images = np.unique(digests, return_inverse=True)
    order = np.argsort(images, kind="stable")
    firsts = np.flatnonzero(np.diff(images[order], prepend=-1))
    labels = np.arange(len(counts))
    while len(order):
        lowest = np.minimum.reduceat(labels[owners[order]], firsts)
        found = labels.copy()
        np.minimum.at(found, owners, lowest[images])
        found = np.minimum(found, found[found])
        if np.array_equal(found, labels):
            break
        labels = found
    return labels
