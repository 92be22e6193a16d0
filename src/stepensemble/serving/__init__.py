"""TensorFlow Serving's REST protocol: requests, responses, and the document that describes them.

Source: https://www.tensorflow.org/tfx/serving/api_rest. This package is pure, as `core` is: `handlers.http` runs the
predictions.

A model of TensorFlow Serving is the ensemble, or one of its members; a version is a release. `servables` finds them and
describes their inputs, outputs and status. `requests` parses requests, `responses` writes responses in the form of the
request, `openapi` describes the HTTP API.

The ensemble takes features by name; they are validated, encoded and scaled. A member takes the tensors of its model, by
the names of the model's inputs, as in TensorFlow Serving; or, if no name is one of these, the ensemble's features. With
the signature `features` a member always takes features.
"""
