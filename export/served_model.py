"""A SavedModel as a server sees it: its signatures, and a call that takes and gives arrays."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from export import versions


@dataclass(frozen=True)
class ServedModel:
    """A version of an exported model, in memory.

    Attributes:
      name: Under which it is served.
      version: Its number.
      signatures: What can be called, by name.
    """

    name: str
    version: str
    signatures: Mapping[str, Any]
    _loaded: Any = field(repr=False)  # Holds the variables that the signatures refer to weakly.

    @classmethod
    def load(cls, folder: str, *, name: str) -> "ServedModel":
        """Loads the newest version in a folder.

        Raises:
          UserError: There is none.
        """
        path = versions.newest(folder)
        loaded = tf.saved_model.load(path)
        return cls(name, os.path.basename(path), dict(loaded.signatures), loaded)

    def inputs(self, signature: str) -> dict[str, tf.TensorSpec]:
        """Returns the inputs of a signature, by name."""
        return dict(self.signatures[signature].structured_input_signature[1])

    def outputs(self, signature: str) -> dict[str, tf.TensorSpec]:
        """Returns the outputs of a signature, by name."""
        return dict(self.signatures[signature].structured_outputs)

    def call(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Returns the outputs for a list of values for each input.

        Raises:
          tf.errors.InvalidArgumentError: The model refuses the values.
        """
        specs = self.inputs(signature)
        tensors = {name: tf.constant(values, specs[name].dtype) for name, values in inputs.items()}
        found = self.signatures[signature](**tensors)
        return {name: values.numpy() for name, values in sorted(found.items())}
