"""The TFDS builder of `products`: it runs the shard job, and reads what that wrote."""

import os
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from pipeline import files, manifest, schema, shard_job, taxonomy
from pipeline.manifest import Manifest
from pipeline.shard_config import ShardConfig

_LEVELS = 3
_INPUTS = ("train.bson", "test.bson")


class Builder(FileReaderBuilder):
    """A shop's catalogue in the form of Cdiscount's: a dump, and a category tree of three levels.

    Trees of another depth need no builder: `tfds.builder_from_directory` reads
    any folder that `python -m pipeline.shard` has written.
    """

    VERSION = tfds.core.Version(schema.VERSION)
    RELEASE_NOTES = {schema.VERSION: "One record a product."}  # noqa: RUF012 - TFDS wants a plain dictionary.
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put train.bson, test.bson (either is enough) and category_names.csv into the folder `manual_dir`, such as "
        "those of https://www.kaggle.com/c/cdiscount-image-classification-challenge/data."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        levels = {schema.level_key(level): tfds.features.ClassLabel() for level in range(1, _LEVELS + 1)}
        features = {
            schema.PRODUCT_ID: tfds.features.Scalar(dtype=np.int64),
            schema.CATEGORY_ID: tfds.features.Scalar(dtype=np.int64),
            schema.IMAGES: tfds.features.Sequence(tfds.features.Image(encoding_format="jpeg")),
            **levels,
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), disable_shuffling=True)

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        del download_config  # Splits and order follow from the defaults of the shard job.
        folder = str(dl_manager.manual_dir)
        inputs = [os.path.join(folder, name) for name in _INPUTS if files.exists(os.path.join(folder, name))]
        if not inputs:
            raise FileNotFoundError(
                f"{folder} has neither train.bson nor test.bson. {self.MANUAL_DOWNLOAD_INSTRUCTIONS}"
            )
        destination = str(self.data_path)
        output = f"{destination.rstrip('/')}.shards"
        data = shard_job.run(
            ShardConfig(inputs=tuple(inputs), output=output, categories=shard_job.beside(inputs), overwrite=True)
        )
        files.remove_tree(destination)
        files.move_folder(data.folder, destination, last=manifest.MARKER)
        self._describe(Manifest.load(destination))

    def _describe(self, data: Manifest) -> None:
        """Tells TFDS of the splits and the names of the labels."""
        tree = taxonomy.Taxonomy.load(data.path(taxonomy.FILE_NAME))
        for level in range(1, _LEVELS + 1):
            self.info.features[schema.level_key(level)].names = [
                " ".join(name.split()) for name in tree.node_names(level)
            ]
        self.info.set_splits(
            tfds.core.splits.SplitDict(
                [
                    tfds.core.SplitInfo(
                        name=split,
                        shard_lengths=[shard["records"] for shard in data.details["splits"][split]],
                        num_bytes=sum(shard.bytes for shard in shards),
                        filename_template=self._get_filename_template(split),
                    )
                    for split, shards in data.splits.items()
                ]
            )
        )
