"""The versions of an exported model: folders with whole numbers for names, as TensorFlow Serving looks for them."""

import os

from pipeline.console import UserError


def newest(folder: str) -> str:
    """Returns the folder of the newest version.

    Raises:
      UserError: There is none.
    """
    if not (number := _newest(folder)):
        raise UserError(
            f"{folder} holds no exported model (no folder 1, 2, ...); expected an --output of python -m export.save."
        )
    return os.path.join(folder, str(number))


def next_folder(folder: str) -> str:
    """Returns where the next version goes."""
    return os.path.join(folder, str(_newest(folder) + 1))


def _newest(folder: str) -> int:
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return max((int(name) for name in names if name.isascii() and name.isdigit()), default=0)
