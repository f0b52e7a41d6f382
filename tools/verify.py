r"""Checks a dataset of shards byte by byte, and names what is wrong.

    python -m tools.verify data/train-shards

Every file is compared with its checksum, every record with its own checksums
and with the table of records, and all counts with the manifest. With --source
every record is also compared with the document in the dump that it was made of,
and every document is looked for. Ends with status 1 where anything is wrong.
"""

import os
from collections.abc import Sequence

from absl import flags

from pipeline import console
from pipeline.manifest import Manifest
from tools import verification

_SOURCE = flags.DEFINE_list("source", [], "BSON files that the dataset was made of, to compare it with them.")
_WORKERS = flags.DEFINE_integer("workers", os.cpu_count(), "Number of processes.")


def main(argv: Sequence[str]) -> None:
    """Verifies the dataset that is named on the command line."""
    if len(argv) != 2:
        raise console.UserError(f"{len(argv) - 1} folders are named; expected one: python -m tools.verify FOLDER.")
    data = Manifest.load(argv[1])
    faults = verification.verify(data, inputs=_SOURCE.value, workers=_WORKERS.value)
    for fault in faults:
        console.say(f"wrong: {fault}")
    if faults:
        raise console.UserError(f"{data.folder} is not as it was written, see above; restore it or shard again.")
    console.say(data.summary())
    console.say(f"Verified {data.folder}: nothing is wrong.")


if __name__ == "__main__":
    console.run(main, flags_parser=console.parse_flags_and_arguments)
