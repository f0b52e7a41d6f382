r"""Makes up a catalogue in the form of Cdiscount's, of any size.

    python -m tools.synthesize --output data --products 3000 --test_products 600

Writes train.bson, test.bson, category_names.csv, and solution.csv with the true
categories of the test set. The pictures are drawn so that a product's place in
the category tree can be learned from them. The same seed gives the same bytes.
"""

import os
from collections.abc import Sequence

from absl import flags

from pipeline import console
from tools import synthetic_catalogue

_OUTPUT = flags.DEFINE_string("output", None, "Folder of the catalogue.", required=True)
_PRODUCTS = flags.DEFINE_integer("products", 3000, "Number of labelled products; 1,000 take about 10 MB.")
_TEST_PRODUCTS = flags.DEFINE_integer("test_products", 600, "Number of products without a category.")
_NUM_CATEGORIES = flags.DEFINE_integer("num_categories", None, "Number of categories; 30, or all of --categories.")
_CATEGORIES = flags.DEFINE_string("categories", None, "CSV of a category tree to use instead of a made-up one.")
_SEED = flags.DEFINE_integer("seed", 0, "Everything follows from it.")
_WORKERS = flags.DEFINE_integer("workers", os.cpu_count(), "Number of processes.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the files of an earlier catalogue.")


def main(_: Sequence[str]) -> None:
    """Writes the catalogue that the flags describe."""
    config = synthetic_catalogue.CatalogueConfig(
        output=_OUTPUT.value,
        products=_PRODUCTS.value,
        test_products=_TEST_PRODUCTS.value,
        tree=synthetic_catalogue.categories_of(_CATEGORIES.value, _NUM_CATEGORIES.value, _SEED.value),
        seed=_SEED.value,
        workers=_WORKERS.value,
        overwrite=_OVERWRITE.value,
    )
    for path, size in synthetic_catalogue.write(config).items():
        console.say(f"{size / 1e6:>10,.1f} MB  {path}")
    train = os.path.join(config.output, synthetic_catalogue.TRAIN)
    console.say(f"Wrote {config.output}. Next: python -m pipeline.shard --input {train}")


if __name__ == "__main__":
    console.run(main)
