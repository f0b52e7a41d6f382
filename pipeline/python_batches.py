"""Datasets whose batches a method makes, in Python, by number."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

Column = tuple[tf.DType, tuple[int | None, ...]]


def dataset(
    numbers: range,
    make: Callable[[int], Sequence[Any]],
    columns: Sequence[Column],
    *,
    of: Callable[..., tuple[tf.Tensor, ...]] = lambda *columns: columns,
) -> tf.data.Dataset:
    """Returns what a method makes of each number, in order; several are in the making at once.

    TensorFlow never lets go of a function that it was given, so it gets one that
    holds on to nothing: the method's object lives as long as the dataset.

    Args:
      numbers: What to call it with.
      make: A bound method that several threads may call; returns arrays.
      columns: Dtype and shape of each of them.
      of: Makes an element of them; a tuple by default.
    """
    method = weakref.WeakMethod(make)

    def call(number: Any) -> Sequence[Any]:
        found = method()
        if found is None:
            raise RuntimeError("the dataset that these batches are of is gone; hold on to it while you read them")
        return found(int(number))

    def to_batch(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        batch = tf.numpy_function(call, (number,), [dtype for dtype, _ in columns])
        for column, (_, shape) in zip(batch, columns, strict=True):
            column.set_shape(shape)
        return of(*batch)

    found = tf.data.Dataset.range(numbers.start, numbers.stop).map(to_batch, num_parallel_calls=tf.data.AUTOTUNE)
    found = found.prefetch(2).with_options(_options())
    found.maker = make
    return found


def _options() -> tf.data.Options:
    """Returns options: each stage may have all cores, so there is nothing to tune.

    Tuning would take 3% of all time, and keep whoever ends a dataset waiting
    until its thread wakes, which sleeps up to a minute: 2 to 5 seconds for each
    short one.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.inject_prefetch = False
    return options
