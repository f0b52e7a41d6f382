"""Loaders with a file format of their own: FFCV, WebDataset, MosaicML streaming, NVIDIA DALI."""

import glob
import os
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import numpy as np

from tools.benchmark.peers.images import Images, cut_out, decode, decode_batch, made
from tools.benchmark.rates import Loader, Work

_Batches = Callable[[], Iterator[int]]
_TARS = 8


def _tars(work: Work) -> list[str]:
    """Returns tar files with a JPEG and a label for each image, the form of WebDataset."""

    def write(folder: str) -> None:
        images = Images(work)
        os.makedirs(folder, exist_ok=True)
        for number in range(_TARS):
            with tarfile.open(os.path.join(folder, f"{number:03d}.tar"), "w") as tar:
                for row in range(number, len(images), _TARS):
                    for suffix, content in (("jpg", bytes(images[row])), ("cls", str(images.labels[row]).encode())):
                        member = tarfile.TarInfo(f"{row:08d}.{suffix}")
                        member.size = len(content)
                        tar.addfile(member, BytesIO(content))

    return sorted(glob.glob(os.path.join(made(work, "tars", write), "*.tar")))


def webdataset(work: Work) -> _Batches:
    """WebDataset, https://webdataset.github.io/webdataset: image by image, batched in the worker."""

    def prepared(dataset: Any) -> Any:
        pixels = dataset.map_tuple(lambda data: cut_out(decode(data), work), int)
        return pixels.batched(work.batch_size, partial=False)

    return _webdataset(work, prepared)


def webdataset_batches(work: Work) -> _Batches:
    """WebDataset, where encoded images are batched before they are decoded."""

    def prepared(dataset: Any) -> Any:
        encoded = dataset.batched(work.batch_size, partial=False, collation_fn=lambda rows: zip(*rows, strict=True))
        return encoded.map_tuple(lambda images: decode_batch(images, work), np.array)

    return _webdataset(work, prepared)


def _webdataset(work: Work, prepared: Callable[[Any], Any]) -> _Batches:
    import torch.utils.data
    import webdataset as wds

    def to_tensors(batch: Any) -> Any:
        images, labels = batch
        return torch.from_numpy(images), torch.from_numpy(labels)

    read = wds.WebDataset(_tars(work), shardshuffle=_TARS).shuffle(work.shuffle_images).to_tuple("jpg", "cls")
    dataset = prepared(read).map(to_tensors)
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=work.cores, persistent_workers=True)

    def batches() -> Iterator[int]:
        for images, _ in loader:
            yield len(images)

    return batches


def streaming(work: Work) -> _Batches:
    """MosaicML streaming, https://docs.mosaicml.com/projects/streaming: image by image, collated by PyTorch."""
    import torch.utils.data
    from streaming import MDSWriter, StreamingDataset

    def write(folder: str) -> None:
        images = Images(work)
        with MDSWriter(out=folder, columns={"image": "bytes", "label": "int"}, size_limit=16 << 20) as writer:
            for row in range(len(images)):
                writer.write({"image": bytes(images[row]), "label": int(images.labels[row])})

    class Dataset(StreamingDataset):
        def __getitem__(self, at: Any) -> Any:
            row = super().__getitem__(at)
            return torch.from_numpy(np.ascontiguousarray(cut_out(decode(row["image"]), work))), row["label"]

    dataset = Dataset(local=made(work, "streaming", write), shuffle=True, batch_size=work.batch_size)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=work.batch_size, num_workers=work.cores, drop_last=True, persistent_workers=True
    )

    def batches() -> Iterator[int]:
        for images, _ in loader:
            yield len(images)

    return batches


def dali(work: Work) -> _Batches:
    """NVIDIA DALI, https://docs.nvidia.com/deeplearning/dali, on the processor: tar files, decoded where cut out."""
    from nvidia.dali import fn, pipeline_def, types

    paths, images = _tars(work), len(Images(work))

    @pipeline_def(batch_size=work.batch_size, num_threads=work.cores, device_id=None, seed=0)
    def pipeline() -> Any:
        encoded, label = fn.readers.webdataset(
            paths=paths, ext=["jpg", "cls"], random_shuffle=True, initial_fill=work.shuffle_images
        )
        pixels = fn.decoders.image_crop(
            encoded,
            crop=(work.image_size, work.image_size),
            crop_pos_x=fn.random.uniform(range=(0, 1)),
            crop_pos_y=fn.random.uniform(range=(0, 1)),
            output_type=types.RGB,
            use_fast_idct=True,
        )
        return pixels, label

    built = pipeline()
    built.build()

    def batches() -> Iterator[int]:
        for _ in range(images // work.batch_size):
            pixels, _ = built.run()
            yield pixels.as_tensor().shape()[0]

    return batches


def ffcv(work: Work) -> _Batches:
    """FFCV, https://docs.ffcv.io: its compiled loader, on the same JPEGs as all others."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
    from ffcv.fields.rgb_image import IMAGE_MODES
    from ffcv.loader import Loader as Library
    from ffcv.loader import OrderOption
    from ffcv.transforms import ToTensor
    from ffcv.writer import DatasetWriter

    class Encoded(RGBImageField):
        """Keeps JPEGs as they are; the original would encode them anew."""

        def encode(self, destination: Any, image: Any, malloc: Any) -> None:
            destination["mode"] = IMAGE_MODES["jpg"]
            destination["height"] = destination["width"] = work.decode_size
            destination["data_ptr"], storage = malloc(len(image))
            storage[:] = np.frombuffer(image, np.uint8)

    class Rows:
        def __init__(self) -> None:
            self._images = Images(work)

        def __len__(self) -> int:
            return len(self._images)

        def __getitem__(self, row: int) -> tuple[bytes, int]:
            return bytes(self._images[row]), int(self._images.labels[row])

    def write(path: str) -> None:
        DatasetWriter(path, {"image": Encoded(), "label": IntField()}, num_workers=1).from_indexed_dataset(Rows())

    share = (work.image_size / work.decode_size) ** 2
    size = (work.image_size, work.image_size)
    cut = RandomResizedCropRGBImageDecoder(size, scale=(share, share), ratio=(1.0, 1.0))  # Nothing is resized.
    loader = Library(
        made(work, "images.beton", write),
        batch_size=work.batch_size,
        num_workers=work.cores,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        pipelines={"image": [cut, ToTensor()], "label": [IntDecoder(), ToTensor()]},
    )

    def batches() -> Iterator[int]:
        for images, _ in loader:
            yield len(images)

    return batches


ALL: dict[str, Loader] = {
    "FFCV": ffcv,
    "WebDataset, batches decoded in one call": webdataset_batches,
    "WebDataset, image by image": webdataset,
    "MosaicML streaming, image by image": streaming,
    "NVIDIA DALI, on the processor": dali,
}
