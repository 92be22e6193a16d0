"""A model behind a Lambda handler as tutorials write it: fetch the zip, unpack it, load it, predict, at every call.

The way of Burek and Jurado, Serverless TensorFlow Model in AWS (https://medium.com/p/f3d356fd5208), and of many
others. TensorFlow is imported once a process, at the top, as it should be.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import boto3
import tensorflow as tf

s3 = boto3.client("s3", endpoint_url=os.environ.get("AWS_ENDPOINT_URL"))


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """Predict `rows` with the SavedModel in a zip at `bucket` and `key`."""
    folder = Path(tempfile.mkdtemp())
    try:
        path = folder / "model.zip"
        s3.download_file(event["bucket"], event["key"], str(path))
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        model = tf.saved_model.load(str(folder))
        predict = model.signatures["serving_default"]
        (name,) = predict.structured_input_signature[1]
        outputs = predict(**{name: tf.constant(event["rows"], tf.float32)})
        return {"outputs": next(iter(outputs.values())).numpy().tolist()}
    finally:
        shutil.rmtree(folder)
