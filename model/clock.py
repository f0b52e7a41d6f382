"""The share of training that waits for input."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import keras


class Clock(keras.callbacks.Callback):
    """Measures how long training waits for batches.

    A batch is fetched when the step before it has ended, since callbacks that
    read its loss wait for the device. What the fetch takes is time in which
    the device does nothing.

    Attributes:
      waited: Seconds spent in fetching batches, since training began or `reset`.
      seconds: All seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        """Starts again from 0."""
        self.waited = 0.0
        self._begun = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since training began."""
        return time.perf_counter() - self._begun

    @property
    def share(self) -> float:
        """Share of the time that was spent in waiting, in [0, 1]."""
        return self.waited / self.seconds

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Called by Keras when the function of a step is made, and before it is called."""
        self._untimed = self.model.train_function
        self.model.train_function = self._timed(self._untimed)
        self.reset()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Called by Keras at the end of fit."""
        self.model.train_function = self._untimed

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function of a step, which takes an iterator last, with the iterator watched."""

        def step(*arguments: Any) -> Any:
            *state, iterator = arguments  # JAX passes its state first.
            return function(*state, self._watched(iterator))

        return step

    def _watched(self, iterator: Iterator[Any]) -> Iterator[Any]:
        while True:
            begun = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                self.waited += time.perf_counter() - begun
            yield batch
