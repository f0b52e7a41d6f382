"""Tests of products that share an image."""

from pathlib import Path

import bson
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline import duplicates, schema, shard_job, splits
from pipeline.shard_config import ShardConfig

_PRODUCTS = st.lists(st.lists(st.integers(0, 25), max_size=3), min_size=1, max_size=30)


def _clusters(products: list[list[int]]) -> np.ndarray:
    digests = [digest for images in products for digest in images]
    return duplicates.clusters(np.array([len(images) for images in products]), np.array(digests, np.uint64))


def _spread(products: list[list[int]]) -> list[int]:
    """Returns the first product of each product's cluster, the slow way."""
    labels = list(range(len(products)))
    for _ in products:
        for number, images in enumerate(products):
            for other, shown in enumerate(products):
                if set(images) & set(shown):
                    labels[number] = min(labels[number], labels[other])
    return labels


@given(_PRODUCTS)
def test_products_that_share_an_image_are_in_one_cluster(products: list[list[int]]) -> None:
    assert _clusters(products).tolist() == _spread(products)


def test_a_long_chain_is_one_cluster() -> None:
    chain = [[number, number + 1] for number in range(5000)]
    order = np.random.default_rng(0).permutation(5000)
    assert len(np.unique(_clusters([chain[number] for number in order]))) == 1


@given(_PRODUCTS, st.integers(0, 5), st.sampled_from([0.1, 0.3, 0.6]))
def test_clusters_stay_in_one_split_and_train_has_every_category(
    products: list[list[int]], seed: int, fraction: float
) -> None:
    clusters = _clusters(products)
    ids = np.arange(len(products)) * 7 % 211
    categories = np.arange(len(products)) % 4
    config = ShardConfig(inputs=("a.bson",), output="shards", validation_fraction=fraction, seed=seed)
    codes = splits.codes(ids, categories, config, clusters=clusters)
    for cluster in np.unique(clusters):
        assert len(np.unique(codes[clusters == cluster])) == 1
    for category in np.unique(categories):
        assert schema.SPLITS.index(schema.TRAIN) in codes[categories == category]


def test_products_alone_split_as_without_clusters() -> None:
    ids = np.random.default_rng(0).permutation(500)
    categories = ids % 9
    config = ShardConfig(inputs=("a.bson",), output="shards", validation_fraction=0.2)
    alone = splits.codes(ids, categories, config, clusters=np.arange(500))
    np.testing.assert_array_equal(alone, splits.codes(ids, categories, config))


def test_no_validation_product_shares_an_image_with_train(catalogue: Path, tmp_path: Path) -> None:
    seen = {}
    for split_by in ("product", "duplicates"):
        config = ShardConfig(
            inputs=(str(catalogue / "train.bson"),),
            output=str(tmp_path / split_by),
            split_by=split_by,
            validation_fraction=0.2,
            shard_bytes=400 << 10,
            piece_bytes=64 << 10,
        )
        data = shard_job.run(config)
        seen[split_by] = len(data.seen_in_train())
        assert sum(shard.records for shards in data.splits.values() for shard in shards) == 300
        assert len(data.product_ids("validation")) > 20
    assert seen["product"] > 0
    assert seen["duplicates"] == 0


def test_broken_documents_do_not_stop_the_digesting(tmp_path: Path) -> None:
    documents = [{"_id": number, "imgs": [{"picture": b"same"}], "category_id": 1} for number in range(9)]
    documents[4]["imgs"] = "none"
    source = tmp_path / "a.bson"
    source.write_bytes(b"".join(map(bson.encode, documents)))
    config = ShardConfig(inputs=(str(source),), output=str(tmp_path / "o"), split_by="duplicates", tolerate_damage=True)
    data = shard_job.run(config)
    assert len(data.product_ids("train")) == 8
    assert data.details["refused"]["parts"] == 1
