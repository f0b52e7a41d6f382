import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline import schema
from pipeline.manifest import Manifest
from tools.benchmark import loaders, peers
from tools.benchmark.peers import images
from tools.benchmark.rates import Work, best_rates

_BATCHES, _PAUSE_S = 4, 0.05


def steady(work: Work) -> Callable[[], Iterator[int]]:
    def batches() -> Iterator[int]:
        for _ in range(_BATCHES):
            time.sleep(_PAUSE_S)
            yield work.batch_size

    return batches


def not_installed(work: Work) -> Callable[[], Iterator[int]]:
    import no_such_package  # type: ignore[import-not-found]

    return no_such_package.load(work)  # type: ignore[no-any-return]


def dies_while_preparing(work: Work) -> Callable[[], Iterator[int]]:
    os._exit(3)


def dies_in_a_pass(work: Work) -> Callable[[], Iterator[int]]:
    def batches() -> Iterator[int]:
        yield work.batch_size
        os._exit(3)

    return batches


@pytest.fixture(scope="module")
def work(train_data: Manifest, catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Work:
    scratch = str(tmp_path_factory.mktemp("scratch"))
    return Work(folder=train_data.folder, dump=str(catalogue / "train.bson"), scratch=scratch, batch_size=32)


def count_images(data: Manifest) -> int:
    return sum(shard.images for shard in data.shards(schema.TRAIN))


def test_a_missing_package_is_left_out_and_a_death_counts_as_nothing(work: Work) -> None:
    chosen = {loader.__name__: loader for loader in (steady, not_installed, dies_while_preparing, dies_in_a_pass)}

    rates = best_rates(chosen, work, rounds=2)

    # The first batch is not measured, and no clock makes a pause shorter.
    assert 0 < rates.pop("steady") <= work.batch_size / _PAUSE_S
    assert rates == {"dies_while_preparing": 0, "dies_in_a_pass": 0}


@pytest.mark.parametrize("name", loaders.OWN)
def test_own_loaders_yield_every_image_that_fills_a_batch(name: str, work: Work, train_data: Manifest) -> None:
    images = count_images(train_data)
    whole = images if name.startswith("TFDS") else images // work.batch_size * work.batch_size

    assert sum(loaders.OWN[name](work)()) == whole


def test_images_of_peers_are_those_of_the_dataset(work: Work, train_data: Manifest) -> None:
    rows = images.Images(work)

    assert [(bytes(rows[row]), int(rows.labels[row])) for row in range(len(rows))] == [*loaders.labelled_pictures(work)]
    assert len(rows) == count_images(train_data)


def test_batches_of_peers_are_cut_out_of_the_pictures(work: Work) -> None:
    rows = images.Images(work)

    batch = images.decode_batch([rows[0], rows[1]], work)

    assert batch.shape == (2, work.image_size, work.image_size, 3)
    corners = [(top, left) for top in range(21) for left in range(21)]
    whole = images.decode(rows[1])
    assert any((whole[top : top + 160, left : left + 160] == batch[1]).all() for top, left in corners)


def test_rows_of_peers_have_names_of_their_own() -> None:
    assert not peers.ALL.keys() & loaders.OWN.keys()
