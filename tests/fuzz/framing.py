r"""Coverage-guided fuzzing of finding and parsing documents (Atheris, on Linux).

    pip install atheris && python tests/fuzz/framing.py -runs=1000000 -max_len=4096

Any input must be tiled by documents and refusals, whatever the ranges, and
documents that are read all at once must be read as each by itself is.
"""

import itertools
import sys
import tempfile
from pathlib import Path

import atheris
import bson

with atheris.instrument_imports(include=["pipeline"]):
    from pipeline import bson_framing, index, layout, records

_FIELDS = records.Fields()


class _Memory:
    """Stands in for a reader of a file."""

    content = b""

    def __init__(self, _: str) -> None:
        self.size = len(self.content)

    def __enter__(self) -> "_Memory":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, start: int, length: int) -> bytes:
        """Returns up to `length` bytes from offset `start`."""
        return self.content[start : start + max(0, length)]

    def window(self, start: int, length: int) -> memoryview:
        """Returns the same as a view."""
        return memoryview(self.read(start, length))


setattr(index, "Reader", _Memory)  # noqa: B010 - It is no name that the module offers.


def check(data: bytes) -> None:
    """Indexes the data in ranges of a size that its first byte chooses."""
    _Memory.content = content = data[1:]
    size = 64 + 16 * data[0] if data else 64  # Smaller ranges cost more time than they find.
    stops = range(0, len(content), size)
    parts = [index.Range(0, "memory", start, min(start + size, len(content))) for start in stops]
    found = index.join([(part, index.index_range(part, _FIELDS)) for part in parts], _FIELDS)
    tiles = [*zip(found.starts.tolist(), found.ends.tolist(), strict=True)]
    tiles += [(refusal.start, refusal.end) for refusal in found.refusals]
    position = 0
    for start, end in sorted(tiles):
        if start != position or end <= start:
            raise AssertionError(f"a tile begins at {start}, and the one before ends at {position}")
        position = end
    if position != len(content):
        raise AssertionError(f"the tiles end at {position} of {len(content)}")
    _check_products(content, found)


def _check_products(content: bytes, found: index.Index) -> None:
    """Reads the documents of an index all at once and each by itself."""
    products, refused = layout.read(memoryview(content), found.starts, found.ends, _FIELDS)
    pictures = zip(products.starts.tolist(), products.ends.tolist(), strict=True)
    for row, (start, end) in enumerate(zip(found.starts.tolist(), found.ends.tolist(), strict=True)):
        own = [content[first:last] for first, last in itertools.islice(pictures, int(products.num_images[row]))]
        try:
            expected = records.parse(content[start:end], _FIELDS)
        except (records.RefusedDocument, bson.errors.InvalidBSON):
            if row not in refused:
                raise AssertionError(f"document {row} is read, and cannot be parsed") from None
            continue
        read = (int(products.product_id[row]), int(products.category_id[row]), own)
        if row in refused or read != (*expected[:2], list(map(bytes, expected.pictures))):
            raise AssertionError(f"document {row} is read in two ways")
        if products.product_id[row] != found.product_ids[row] or products.category_id[row] != found.category_ids[row]:
            raise AssertionError(f"document {row} has other keys in the index")


def write_seeds(folder: Path) -> None:
    """Writes inputs to start from: documents in the common layout and in others, whole and cut."""
    common = {"_id": 1, "imgs": [{"picture": b"\xff\xd8 one"}, {"picture": b"\xff\xd8 two"}], "category_id": 1000000010}
    other = {"category_id": 1000000010, "_id": 2**40, "more": {"deep": [1.5, None]}, "imgs": []}
    first, second, test = (bson.encode(item) for item in (common, other, {**common, "_id": 3, "category_id": 7}))
    for number, content in enumerate(
        [first * 2, first + second + test, second * 3, first[:-9] + test, test + b"\0" * 5]
    ):
        (folder / f"{number}").write_bytes(bytes([number]) + content)


if __name__ == "__main__":
    bson_framing.WINDOW_BYTES = 1 << 12
    with tempfile.TemporaryDirectory() as seeds:
        write_seeds(Path(seeds))
        atheris.Setup([*sys.argv, seeds], check)
        atheris.Fuzz()
