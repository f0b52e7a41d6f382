"""The TFDS dataset `products`, made by the shard job."""
