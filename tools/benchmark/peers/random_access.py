"""Loaders that read rows in any order: SPDL, PyTorch's, Grain, Hugging Face datasets. All shuffle all images."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tools.benchmark.peers.images import Images, cut_out, decode, decode_batch, made
from tools.benchmark.rates import Loader, Work

_Batches = Callable[[], Iterator[int]]


def spdl(work: Work) -> _Batches:
    """SPDL, https://facebookresearch.github.io/spdl: a pipeline of threads, a whole batch a call."""
    from spdl.pipeline import PipelineBuilder

    images = Images(work)

    def batch_of(rows: np.ndarray) -> np.ndarray:
        return decode_batch([images[row] for row in rows], work)

    def batches() -> Iterator[int]:
        order = np.random.permutation(len(images))
        rows = np.split(order[: len(order) // work.batch_size * work.batch_size], len(order) // work.batch_size)
        builder = PipelineBuilder().add_source(rows).pipe(batch_of, concurrency=work.cores).add_sink(2)
        pipeline = builder.build(num_threads=work.cores)
        with pipeline.auto_stop():
            for batch in pipeline:
                yield len(batch)

    return batches


def torch_batches(work: Work) -> _Batches:
    """PyTorch's DataLoader over a dataset that fetches a whole batch in one call, into shared memory."""
    import torch

    images = Images(work)

    class Dataset:
        def __len__(self) -> int:
            return len(images)

        def __getitems__(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
            shape = (len(rows), work.image_size, work.image_size, 3)
            # As the default collate_fn does it in a worker: else all pixels would be copied once more.
            storage = torch.UntypedStorage._new_shared(int(np.prod(shape)), device="cpu")
            batch = torch.tensor([], dtype=torch.uint8).set_(storage, 0, shape)
            decode_batch([images[row] for row in rows], work, into=batch.numpy())
            return batch, torch.from_numpy(images.labels[rows])

    return _torch_loader(Dataset(), work, batch_size=work.batch_size, shuffle=True, drop_last=True)


def torch_images(work: Work) -> _Batches:
    """PyTorch's DataLoader as its tutorials have it: image by image, collated."""
    import torch.utils.data

    images = Images(work)

    class Dataset:
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
            return cut_out(decode(images[row]), work), images.labels[row]

    default = torch.utils.data.default_collate
    return _torch_loader(Dataset(), work, batch_size=work.batch_size, shuffle=True, drop_last=True, collate_fn=default)


def hugging_face(work: Work) -> _Batches:
    """Hugging Face datasets, https://huggingface.co/docs/datasets/use_with_pytorch: rows of a batch at once."""
    import datasets
    import torch

    def write(path: str) -> None:
        images = Images(work)
        columns = {"image": map(bytes, images), "label": images.labels}
        features = datasets.Features({"image": datasets.Value("binary"), "label": datasets.Value("int64")})
        datasets.Dataset.from_dict({name: list(of) for name, of in columns.items()}, features).save_to_disk(path)

    def pixels(rows: dict[str, Any]) -> dict[str, Any]:
        return {"image": torch.from_numpy(decode_batch(rows["image"], work)), "label": torch.tensor(rows["label"])}

    dataset = datasets.load_from_disk(made(work, "hugging_face", write)).with_transform(pixels)
    rows = torch.utils.data.BatchSampler(torch.utils.data.RandomSampler(dataset), work.batch_size, drop_last=True)
    return _torch_loader(dataset, work, batch_size=None, sampler=rows)


def _torch_loader(dataset: Any, work: Work, **options: Any) -> _Batches:
    import torch.utils.data

    options = {"collate_fn": _as_it_is, "num_workers": work.cores, "persistent_workers": True} | options
    loader = torch.utils.data.DataLoader(dataset, **options)

    def batches() -> Iterator[int]:
        for batch in loader:
            yield len(batch["image"] if isinstance(batch, dict) else batch[0])

    return batches


def _as_it_is(batch: Any) -> Any:
    return batch


def grain(work: Work) -> _Batches:
    """Grain, https://google-grain.readthedocs.io: image by image, threads and processes as its guide has them."""
    import grain as library

    images = Images(work)
    dataset = library.MapDataset.source(images).shuffle(seed=0)
    chosen = dataset.map(lambda data: np.ascontiguousarray(cut_out(decode(data), work)))
    return _grain_batches(chosen.batch(work.batch_size, drop_remainder=True), work)


def grain_batches(work: Work) -> _Batches:
    """Grain, where encoded images are batched before they are decoded."""
    import grain as library

    images = library.MapDataset.source(Images(work)).shuffle(seed=0)
    encoded = images.batch(work.batch_size, drop_remainder=True, batch_fn=list)
    return _grain_batches(encoded.map(functools.partial(decode_batch, work=work)), work)


def _grain_batches(batched: Any, work: Work) -> _Batches:
    import grain as library

    reading = library.ReadOptions(num_threads=work.cores, prefetch_buffer_size=2 * work.cores)

    def batches() -> Iterator[int]:
        for batch in batched.to_iter_dataset(reading):
            yield len(batch)

    return batches


ALL: dict[str, Loader] = {
    "SPDL, batches decoded in one call": spdl,
    "PyTorch DataLoader, batches decoded in one call": torch_batches,
    "PyTorch DataLoader, image by image": torch_images,
    "Hugging Face datasets, batches decoded in one call": hugging_face,
    "Grain, batches decoded in one call": grain_batches,
    "Grain, image by image": grain,
}
