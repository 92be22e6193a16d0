"""Exports a model file with TensorFlow, in a child process, to a SavedModel and a LiteRT file, with outputs.

TensorFlow's logs, memory and crashes stay in the child. The file has been read as data before (`formats`, `safety`).
Checks that need TensorFlow or h5py are made here, before either of them loads the file.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import Struct

from stepensemble.conversion.contract_inference import GoldenColumns
from stepensemble.conversion.formats import Format, pack_saved_model
from stepensemble.conversion.keras_2 import is_keras_2_config, translate_config
from stepensemble.conversion.parity import draw_inputs
from stepensemble.conversion.safety import check_hdf5, check_keras_config, find_keras_code
from stepensemble.conversion.sandbox import pack_arrays, unpack_arrays
from stepensemble.core.arrays import Array
from stepensemble.core.errors import ConversionFailed, FileDamaged, FileUnsafe
from stepensemble.core.problems import enumerate_values, show
from stepensemble.runtimes import Model, Signature
from stepensemble.runtimes.archives import extract_archive, read_archive, read_folder
from stepensemble.runtimes.graph_checks import find_unknown_operations, raise_if_unsafe
from stepensemble.runtimes.tensorflow import (
    check_saved_model,
    import_tensorflow,
    is_operation,
    load_tensorflow,
    parse_saved_model,
    summarize,
)

EXPORT = (
    "export it with the Keras that wrote it, model.export(folder), or model.save(folder) before Keras 3, and give that"
)


class Exported(Struct, frozen=True):
    """The exported files, with TensorFlow's outputs.

    Attributes:
        saved_model: the artifact of the `tensorflow` runtime.
        litert: the artifact of the `litert` runtime; None if TensorFlow cannot convert to it.
        failure: why it cannot; None if it can.
        inputs: the rows that were predicted; NumPy files by input name.
        outputs: TensorFlow's outputs; NumPy files by output name.
        needs_trust: whether the SavedModel could do more than compute.
    """

    signature: Signature
    saved_model: bytes
    litert: bytes | None
    failure: str | None
    inputs: dict[str, bytes]
    outputs: dict[str, bytes]
    needs_trust: bool


class _Hdf5Contents(NamedTuple):
    """The description of a model in an HDF5 file.

    Attributes:
        config: its architecture as JSON; None if the file has only weights.
        legacy: whether the weights have the layout of Keras 2.
        version: Keras' version; None if the file does not have it.
    """

    config: str | None
    legacy: bool
    version: str | None


class Export(Struct, frozen=True, tag="export"):
    """A job that exports a model file.

    Attributes:
        name: of the file, for errors.
        architecture: JSON of a Keras model, if the file has only weights.
        trust: load it even if it could run code.
        inputs: rows to compare on, NumPy files by input name; drawn by default.
        columns: the same by column, instead of `inputs`; `contract_inference.choose_inputs` binds them to inputs.
        bound: which columns each input takes, if that is declared.
    """

    name: str
    format: Format
    body: bytes
    architecture: str | None
    signature: str | None
    trust: bool
    inputs: dict[str, bytes] | None
    columns: dict[str, bytes] | None = None
    bound: dict[str, tuple[str, ...]] | None = None

    def run(self) -> Exported:
        """Export the file, in this process.

        Raises:
            ModelFileError, MemberError: it cannot be read, is unsafe, or does not take the rows.
            TensorFlowMissing: it is not installed.
        """
        tf = import_tensorflow()
        with tempfile.TemporaryDirectory(prefix="stepensemble-") as temporary:
            folder = Path(temporary) / "saved_model"
            if self.format == "saved_model":
                saved_model = self.body
                extract_archive(saved_model, folder)
            else:
                self._export_keras(Path(temporary), folder)
                saved_model = pack_saved_model(read_folder(folder), self.name)
            needs_trust = self._check_saved_model(saved_model)
            model = load_tensorflow(saved_model, self.signature, trusted=True)  # it was checked here
            inputs = self._make_inputs(model.signature)
            outputs = {tensor.name: model.predict(inputs, tensor.name) for tensor in model.signature.outputs}
            litert, failure = _convert_to_litert(tf, folder, model)
        return Exported(
            model.signature, saved_model, litert, failure, pack_arrays(inputs), pack_arrays(outputs), needs_trust
        )

    def _make_inputs(self, signature: Signature) -> Mapping[str, Array]:
        if self.columns is not None:
            return GoldenColumns(unpack_arrays(self.columns), self.bound).bind(signature)
        return draw_inputs(signature) if self.inputs is None else unpack_arrays(self.inputs)

    def _check_saved_model(self, archive: bytes) -> bool:
        """Check a SavedModel before it is loaded; return whether it could do more than compute, and is trusted."""
        files = read_archive(archive)
        saved_model = parse_saved_model(files["saved_model.pb"])
        unknown = sorted(
            {name for graph in saved_model.meta_graphs for name in find_unknown_operations(graph, is_operation)}
        )
        if unknown:
            raise ConversionFailed(
                f"{self.name} needs operations that TensorFlow does not have, {enumerate_values(unknown)}: "
                "they come with a separate package, which is not served; save the model without them"
            )
        try:
            check_saved_model(saved_model, files, show(self.name))
        except FileUnsafe:
            if not self.trust:
                raise
            return True
        return False

    def _export_keras(self, work: Path, folder: Path) -> None:
        import keras

        load = self._find_keras_loader(keras, work)
        try:
            model = load()
            model.export(str(folder), format="tf_saved_model", verbose=False)
        except Exception as error:  # noqa: BLE001 - Keras may raise anything for a foreign file
            reason = f"Keras {keras.__version__} cannot read {self.name}: {summarize(error)}"
            raise ConversionFailed(f"{reason}; {EXPORT}") from None

    def _find_keras_loader(self, keras: Any, work: Path) -> Callable[[], Any]:
        """Check the file; return a function that loads it."""
        if self.format == "keras":
            files = read_archive(self.body)
            if not self.trust:
                check_keras_config(files["config.json"], self.name)
                arrays = [file for file in sorted(files) if file.endswith((".npz", ".npy"))]
                raise_if_unsafe([f"arrays that may be pickles, {show(file)}" for file in arrays], show(self.name))
                for file, body in files.items():
                    if file.endswith(".h5"):
                        self._read_hdf5(body)
            return self._make_model_loader(keras, work / "model.keras")
        config, legacy, version = self._read_hdf5(self.body)
        if config is not None:
            if not self.trust:
                check_keras_config(config, self.name)
            translated = self._translate(keras, config, version)
            if translated is not None:
                return self._make_weights_loader(keras, translated, work / "model.h5")
            return self._make_model_loader(keras, work / "model.h5")
        if self.architecture is None:
            raise ConversionFailed(
                f"{self.name} has only weights; give the JSON of their model (model.to_json()) with --architecture"
            )
        architecture = self.architecture
        if not self.trust:
            check_keras_config(architecture, "the architecture")
        path = work / ("weights.h5" if legacy else "model.weights.h5")  # Keras distinguishes the two kinds by the name
        return self._make_weights_loader(keras, self._translate(keras, architecture, None) or architecture, path)

    def _translate(self, keras: Any, config: str, version: str | None) -> str | None:
        """Return an architecture of Keras 2 in the format of Keras 3; None for others, and for one with code in it."""
        try:
            read = json.loads(config)
            if not is_keras_2_config(read, version) or any(find_keras_code(read)):
                return None
            return json.dumps(translate_config(read, keras))
        except (ValueError, RecursionError):
            return None
        except ConversionFailed as error:
            raise ConversionFailed(f"{self.name} was written by Keras 2, and {error}; {EXPORT}") from None

    def _make_weights_loader(self, keras: Any, architecture: str, path: Path) -> Callable[[], Any]:
        path.write_bytes(self.body)

        def build() -> Any:
            if self.trust:
                keras.config.enable_unsafe_deserialization()
            model = keras.models.model_from_json(architecture)
            model.load_weights(path)
            return model

        return build

    def _make_model_loader(self, keras: Any, path: Path) -> Callable[[], Any]:
        path.write_bytes(self.body)
        return lambda: keras.models.load_model(path, compile=False, safe_mode=not self.trust)

    def _read_hdf5(self, body: bytes) -> _Hdf5Contents:
        """Check an HDF5 file, and read the description of the model in it."""
        import h5py  # comes with TensorFlow

        try:
            with h5py.File(io.BytesIO(body), "r") as file:
                if not self.trust:
                    check_hdf5(file, self.name)
                config, version = (_decode(file.attrs.get(key)) for key in ("model_config", "keras_version"))
                legacy = "layer_names" in file.attrs
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise FileDamaged(f"{self.name} is truncated or damaged: {summarize(error)}; copy it again") from None
        return _Hdf5Contents(config, legacy, version)


def _decode(attribute: Any) -> str | None:
    """Return an attribute of an HDF5 file as text, if it is text."""
    text = attribute.decode() if isinstance(attribute, bytes) else attribute
    return text if isinstance(text, str) else None


def _convert_to_litert(tf: Any, folder: Path, model: Model) -> tuple[bytes | None, str | None]:
    """Convert to LiteRT's own operations; return the file, or why there is none."""
    try:
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=[model.signature.name])
        return bytes(converter.convert()), None
    except Exception as error:  # noqa: BLE001 - the converter may raise anything for a foreign graph
        found = re.findall(r"(?:TF Select|Flex|Custom) ops: ([^\n]+)", str(error))
        if found:
            return None, f"LiteRT does not have the operations {', '.join(sorted(set(found)))}"
        return None, f"the conversion to LiteRT fails: {summarize(error)}"
