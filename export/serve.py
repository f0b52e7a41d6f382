r"""Serves an exported model over HTTP, with a page where one drops pictures.

    python -m export.serve --model models/products

Answers as TensorFlow Serving does, so that a client can move there unchanged:
POST /v1/models/products:predict with {"instances": [{"b64": "..."}]}, and
GET /v1/models/products. The page is at http://localhost:8501/.
Needs the packages of the extra: pip install 'aisle[serve]'.
"""

import os
from collections.abc import Sequence

from absl import flags

from pipeline import console

_MODEL = flags.DEFINE_string(
    "model", None, "Folder that export.save wrote; the newest version is served.", required=True
)
_NAME = flags.DEFINE_string("name", None, "Name of the model in addresses; by default that of the folder.")
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen at; 0.0.0.0 for every one of this machine.")
_PORT = flags.DEFINE_integer("port", 8501, "Port to listen at.", lower_bound=0, upper_bound=65535)
_MAX_MEGABYTES = flags.DEFINE_integer("max_megabytes", 32, "Largest body of a request, in MiB.", lower_bound=1)
_MAX_IMAGES = flags.DEFINE_integer("max_images", 64, "Most pictures of a request.", lower_bound=1)


def main(_: Sequence[str]) -> None:
    """Serves until it is interrupted."""
    try:
        from export import server, web
    except ImportError as error:
        raise console.UserError(f"a package is not there ({error}): pip install 'aisle[serve]'.") from None
    name = _NAME.value or os.path.basename(os.path.abspath(_MODEL.value))
    limits = server.Limits(body_bytes=_MAX_MEGABYTES.value << 20, images=_MAX_IMAGES.value)
    web.serve(_MODEL.value, name=name, limits=limits, host=_HOST.value, port=_PORT.value)


if __name__ == "__main__":
    console.run(main)
