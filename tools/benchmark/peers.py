"""Loaders of other projects on the same images, as far as they are installed (see peers.txt)."""

from tools.benchmark.rates import Loader

ALL: dict[str, Loader] = {}
