"""Loaders of other projects on the same images, as far as they are installed.

    pip install -r tools/benchmark/peers.txt

Each has the form of the data and the calls that its own documentation
recommends for speed, and `simplejpeg` for a decoder wherever a decoder can be
chosen, with the settings of all others. The name of a row says what differs.
"""

from tools.benchmark.peers import file_formats, keras_loaders, random_access
from tools.benchmark.rates import Loader

ALL: dict[str, Loader] = random_access.ALL | file_formats.ALL | keras_loaders.ALL
