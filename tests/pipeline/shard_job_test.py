"""Tests of the shard job, from a dump to a dataset."""

import errno
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import bson
import mlcroissant
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from pipeline import commit, files, manifest, schema, shard_job
from pipeline.console import UserError
from pipeline.manifest import Manifest
from pipeline.shard_config import ShardConfig

_SMALL = {"piece_bytes": 1 << 10, "shard_bytes": 8 << 10, "validation_fraction": 0.2}


def _product(product_id: int, category_id: int | None = 1, images: int = 2) -> dict[str, Any]:
    pictures = [{"picture": f"{product_id}-{number}".encode() * 20} for number in range(images)]
    content: dict[str, Any] = {"_id": product_id, "imgs": pictures}
    return content if category_id is None else content | {"category_id": category_id}


def _dump(path: Path, products: Iterable[dict[str, Any]]) -> str:
    path.write_bytes(b"".join(map(bson.encode, products)))
    return str(path)


def _tree(path: Path, *category_ids: int) -> str:
    rows = "".join(f"{category_id},A,{category_id}\n" for category_id in category_ids)
    path.write_text("category_id,category_level1,category_level2\n" + rows, encoding="utf-8")
    return str(path)


def _shard(source: str, **options: Any) -> Manifest:
    return shard_job.run(ShardConfig(**{"inputs": (source,), "output": f"{source}-shards", **_SMALL, **options}))


def _content(data: Manifest) -> dict[int, tuple[str, int, list[bytes]]]:
    """Returns split, category and images of every record by product id; fails where an id repeats."""
    found: dict[int, tuple[str, int, list[bytes]]] = {}
    for split, shards in data.splits.items():
        for record in tf.data.TFRecordDataset([data.path(shard.name) for shard in shards]).as_numpy_iterator():
            feature = tf.train.Example.FromString(record).features.feature
            [product_id], [category_id] = (feature[key].int64_list.value for key in ("product_id", "category_id"))
            assert product_id not in found
            found[product_id] = split, category_id, list(feature["images"].bytes_list.value)
    return found


def _snapshot(folder: str) -> dict[str, bytes]:
    names = [name for name in files.list_files(folder) if schema.DATASET_NAME in name]
    return {name: files.read(os.path.join(folder, name)) for name in names}


def test_every_product_comes_out_byte_for_byte(tmp_path: Path) -> None:
    products = [_product(number, 1 + number % 3, images=number % 5) for number in range(100)]
    data = _shard(_dump(tmp_path / "a.bson", products))
    found = _content(data)
    assert {key: (category, images) for key, (_, category, images) in found.items()} == {
        product["_id"]: (product["category_id"], [image["picture"] for image in product["imgs"]])
        for product in products
    }
    assert {split for split, _, _ in found.values()} == {"train", "validation"}
    assert len(data.shards("train")) > 2


def test_records_are_not_in_the_order_of_the_dump(tmp_path: Path) -> None:
    data = _shard(_dump(tmp_path / "a.bson", map(_product, range(300))), validation_fraction=0.0)
    ids = data.product_ids("train").tolist()
    assert sorted(ids) == list(range(300))
    neighbours = sum(abs(one - other) == 1 for one, other in itertools.pairwise(ids))
    assert neighbours < 30


def test_documents_without_category_make_a_test_split(tmp_path: Path) -> None:
    data = _shard(_dump(tmp_path / "a.bson", (_product(number, None) for number in range(20))))
    assert list(data.splits) == ["test"]
    assert {category for _, category, _ in _content(data).values()} == {schema.NO_CATEGORY}


def test_several_inputs_make_one_dataset(tmp_path: Path) -> None:
    _dump(tmp_path / "part-1.bson", map(_product, range(30)))
    _dump(tmp_path / "part-2.bson", map(_product, range(30, 60)))
    data = _shard(str(tmp_path / "part-*.bson"), output=str(tmp_path / "shards"))
    assert sorted(_content(data)) == list(range(60))


def test_tfds_reads_the_folder_as_it_is(catalogue: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "with spaces")
    data = _shard(str(catalogue / "train.bson"), output=output, categories=str(catalogue / "category_names.csv"))
    builder = tfds.builder_from_directory(output)
    expected = _content(data)
    tree = data.taxonomy()
    for split in ("train", "validation"):
        decoders = {"images": tfds.decode.SkipDecoding()}
        for product in builder.as_dataset(split=split, decoders=decoders).as_numpy_iterator():
            own_split, category, images = expected.pop(int(product["product_id"]))
            assert (own_split, category, images) == (split, product["category_id"], product["images"].tolist())
            leaf = tree.label_of[category]
            assert [product[f"level{level}"] for level in (1, 2, 3)] == [tree.ancestors(n)[leaf] for n in (1, 2, 3)]
    assert not expected
    assert builder.info.features["level3"].names == [" ".join(name.split()) for name in tree.node_names(3)]


def test_tfds_reads_splits_with_empty_shards(tmp_path: Path) -> None:
    data = _shard(_dump(tmp_path / "a.bson", map(_product, range(60))), validation_fraction=0.02)
    assert 0 in [shard["records"] for shard in data.details["splits"]["validation"]]
    builder = tfds.builder_from_directory(data.folder)
    decoders = {"images": tfds.decode.SkipDecoding()}
    assert len(list(builder.as_dataset(split="validation", decoders=decoders))) == 1


def test_the_82_products_of_cdiscounts_example(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    source = real_data("cdiscount/train_example.bson")
    names = str(real_data("cdiscount/category_names.csv"))
    data = _shard(str(source), output=str(tmp_path / "shards"), categories=names, shard_bytes=100 << 10)
    products = bson.decode_all(source.read_bytes())
    found = _content(data)
    assert len(found) == 82
    assert sum(len(images) for _, _, images in found.values()) == 110
    for product in products:
        expected = product["category_id"], [image["picture"] for image in product["imgs"]]
        assert found[product["_id"]][1:] == expected
    assert data.taxonomy().num_categories == 5270


@pytest.mark.parametrize("option", ["--direct_num_workers=1", "--direct_num_workers=3"])
def test_shards_are_the_same_whatever_the_workers(tmp_path: Path, option: str) -> None:
    source = _dump(tmp_path / "a.bson", map(_product, range(80)))
    plain = _snapshot(_shard(source).folder)
    config = ShardConfig(inputs=(source,), output=str(tmp_path / "other"), **_SMALL)  # type: ignore[arg-type]
    assert _snapshot(shard_job.run(config, [option, "--direct_running_mode=multi_threading"]).folder) == plain


def test_an_existing_dataset_is_refused_without_overwrite(tmp_path: Path) -> None:
    source = _dump(tmp_path / "a.bson", map(_product, range(20)))
    before = _snapshot(_shard(source).folder)
    with pytest.raises(UserError, match="--overwrite"):
        _shard(source, seed=1)
    assert _snapshot(f"{source}-shards") == before
    assert _snapshot(_shard(source, seed=1, overwrite=True).folder) != before


def test_the_old_dataset_is_readable_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _dump(tmp_path / "a.bson", map(_product, range(20)))
    before = _snapshot(_shard(source).folder)
    with monkeypatch.context() as patch:
        patch.setattr(commit, "_describe", _raise(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            _shard(source, seed=1, overwrite=True)
    assert _snapshot(Manifest.load(f"{source}-shards").folder) == before


def _raise(error: BaseException) -> Callable[..., None]:
    def call(*_: object, **__: object) -> None:
        raise error

    return call


def test_another_folder_with_files_is_never_replaced(tmp_path: Path) -> None:
    source = _dump(tmp_path / "a.bson", map(_product, range(3)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="other files"):
        _shard(source, output=str(tmp_path / "mine"), overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_unfinished_work_with_other_options_is_refused_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _dump(tmp_path / "a.bson", map(_product, range(20)))
    with monkeypatch.context() as patch:
        patch.setattr(commit, "commit", _raise(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            _shard(source)
    with pytest.raises(UserError, match=r"seed was 0 and is 3.*--overwrite"):
        _shard(source, seed=3)
    assert len(_content(_shard(source))) == 20


def test_a_repeated_id_is_an_error_or_skipped(tmp_path: Path) -> None:
    source = _dump(tmp_path / "a.bson", [_product(1), _product(2), _product(1, images=1)])
    with pytest.raises(UserError, match=r"repeat the id .* \(1, .*--duplicate_ids=skip"):
        _shard(source)
    data = _shard(source, duplicate_ids="skip")
    assert len(_content(data)[1][2]) == 2
    assert data.details["refused"]["parts"] == 1


def test_a_category_outside_the_tree_is_an_error_or_skipped(tmp_path: Path) -> None:
    source = _dump(tmp_path / "a.bson", [_product(1, 1), _product(2, 2), _product(3, 9)])
    tree = _tree(tmp_path / "tree.csv", 1, 2)
    with pytest.raises(UserError, match=r"\(9, .*--unknown_categories=skip"):
        _shard(source, categories=tree)
    data = _shard(source, categories=tree, unknown_categories="skip")
    assert sorted(_content(data)) == [1, 2]


def test_damage_stops_the_job_and_is_kept_where_tolerated(tmp_path: Path) -> None:
    documents = [bson.encode(_product(number)) for number in range(20)]
    documents[7] = documents[7][:4] + b"\xee" * (len(documents[7]) - 4)
    (tmp_path / "a.bson").write_bytes(b"".join(documents))
    source = str(tmp_path / "a.bson")
    with pytest.raises(UserError, match=r"1 parts of the input .* 19 whole products .*--tolerate_damage"):
        _shard(source)
    assert not os.path.exists(f"{source}-shards")
    data = _shard(source, tolerate_damage=True)
    assert sorted(_content(data)) == [*range(7), *range(8, 20)]
    assert files.read(data.path("quarantine/refused.bin")) == documents[7]
    [line] = files.read_json(data.path("quarantine/refused.json"))
    assert line["start"] == sum(map(len, documents[:7]))


def test_validation_products_that_share_an_image_with_train_are_listed(tmp_path: Path) -> None:
    products = [_product(number) for number in range(40)]
    for product in products[::2]:
        product["imgs"][0] = {"picture": b"the same"}
    data = _shard(_dump(tmp_path / "a.bson", products))
    held_out = [key for key, (split, _, _) in _content(data).items() if split == "validation"]
    assert data.seen_in_train().tolist() == sorted(key for key in held_out if key % 2 == 0)


def test_a_full_disk_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _dump(tmp_path / "a.bson", map(_product, range(60)))
    write, calls = os.write, []

    def fill(descriptor: int, data: Any) -> int:
        calls.append(len(data))
        if len(calls) == 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fill)
        with pytest.raises((UserError, OSError), match="No space left"):
            _shard(source)
    assert not os.path.exists(f"{source}-shards")
    assert len(_content(_shard(source))) == 60


def test_a_passing_failure_of_the_file_system_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _dump(tmp_path / "a.bson", map(_product, range(10)))
    monkeypatch.setattr(files, "_FIRST_PAUSE_SECONDS", 0.0)
    preadv, failures = os.preadv, [TimeoutError("slow"), ConnectionError("gone")]

    def fail_at_first(*arguments: Any) -> int:
        if failures:
            raise failures.pop()
        return preadv(*arguments)

    monkeypatch.setattr(os, "preadv", fail_at_first)
    assert len(_content(_shard(source))) == 10
    assert not failures


def test_a_passing_failure_while_a_shard_becomes_visible_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _dump(tmp_path / "a.bson", map(_product, range(60)))
    monkeypatch.setattr(files, "_FIRST_PAUSE_SECONDS", 0.0)
    finish, failures = files.Written.finish, [TimeoutError("slow"), ConnectionError("gone")]

    def fail_at_first(written: files.Written) -> None:
        if failures and any("products-train" in path for path in written._temporaries):
            raise failures.pop()
        finish(written)

    monkeypatch.setattr(files.Written, "finish", fail_at_first)
    assert len(_content(_shard(source))) == 60
    assert not failures


def test_a_dump_without_images_is_refused_with_the_names_of_the_fields(tmp_path: Path) -> None:
    source = _dump(tmp_path / "a.bson", [{"_id": 1, "photos": [{"jpeg": b"x"}], "category_id": 1}])
    with pytest.raises(UserError, match=r"imgs\[\]\.picture.*--picture_field"):
        _shard(source)


def test_what_the_manifest_does_not_name_is_never_read(tmp_path: Path) -> None:
    data = _shard(_dump(tmp_path / "a.bson", map(_product, range(20))))
    leftover = data.path(schema.shard_name("train", 7, 8))
    files.write(leftover, [b"of another run"])
    assert leftover not in [data.path(shard.name) for shard in Manifest.load(data.folder).shards("train")]


def test_readers_refuse_a_missing_or_short_shard_and_a_missing_marker(tmp_path: Path) -> None:
    data = _shard(_dump(tmp_path / "a.bson", map(_product, range(20))))
    path = data.path(data.shards("train")[0].name)
    content = files.read(path)
    files.write(path, [content[:-1]])
    with pytest.raises(UserError, match=f"has {len(content) - 1} bytes; expected {len(content)}"):
        data.shards("train")
    os.unlink(path)
    with pytest.raises(UserError, match="is missing"):
        data.shards("train")
    os.unlink(data.path(manifest.MARKER))
    with pytest.raises(UserError, match="no finished dataset"):
        Manifest.load(data.folder)


def test_every_fold_can_be_held_out(tmp_path: Path) -> None:
    products = [_product(number) for number in range(30)]
    products[4]["imgs"] = products[5]["imgs"] = [{"picture": b"the same"}]
    data = _shard(_dump(tmp_path / "a.bson", products), folds=3)
    found = _content(data)
    assert sorted(found) == list(range(30))
    for fold in range(3):
        view = data.hold_out(fold)
        assert set(view.product_ids("validation")) == {
            key for key, (split, _, _) in found.items() if split == f"fold{fold}"
        }
        assert sorted([*view.product_ids("train"), *view.product_ids("validation")]) == list(range(30))
        apart = {4, 5} if found[4][0] != found[5][0] else set()
        assert set(view.seen_in_train()) == apart & set(view.product_ids("validation"))
    with pytest.raises(UserError, match="has 3 folds, --fold=0 to 2"):
        data.hold_out(3)
    with pytest.raises(UserError, match="--fold is None"):
        data.hold_out(None)


def test_croissant_metadata_is_valid_and_has_the_checksums_and_categories(catalogue: Path, tmp_path: Path) -> None:
    categories = str(catalogue / "category_names.csv")
    source = str(catalogue / "test.bson")
    data = _shard(source, output=str(tmp_path / "shards"), categories=categories, croissant=True)
    dataset = mlcroissant.Dataset(jsonld=data.path("croissant.json"))
    assert not dataset.metadata.issues.errors
    assert [file.id for file in dataset.metadata.distribution] == [shard.name for shard in data.shards("test")]
    for file in dataset.metadata.distribution:
        assert file.sha256 == hashlib.sha256(files.read(data.path(file.id))).hexdigest()
    rows = list(dataset.records("categories"))
    assert [row["categories/category_id"] for row in rows] == list(data.taxonomy().category_ids)


def test_a_dataset_without_folds_is_held_out_as_it_is(train_data: Manifest) -> None:
    assert train_data.hold_out(None) == train_data
    with pytest.raises(UserError, match="has no folds"):
        train_data.hold_out(0)
