"""Tests of where a map runs when several processes are asked for."""

import pytest

from pipeline.engines import Engine

_TWO_PROCESSES = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")


@pytest.mark.parametrize(
    ("most", "briefly", "workers", "mode"),
    [(1, True, 1, "in_memory"), (2, True, 2, "multi_processing"), (1, False, 2, "multi_processing")],
)
def test_only_work_that_is_done_soon_stays_in_this_process(most: int, briefly: bool, workers: int, mode: str) -> None:
    options = Engine(_TWO_PROCESSES)._with_local_defaults(most, briefly).get_all_options()
    assert (options["direct_num_workers"], options["direct_running_mode"]) == (workers, mode)


def test_another_runner_gets_the_options_as_they_are() -> None:
    options = Engine(["--runner=DirectRunner", *_TWO_PROCESSES])._with_local_defaults(1, True).get_all_options()
    assert (options["direct_num_workers"], options["direct_running_mode"]) == (2, "multi_processing")
