"""TensorFlow Serving's REST protocol: what its clients ask, and what they are answered.

Source: https://www.tensorflow.org/tfx/serving/api_rest. Pure, as `core` is: `handlers` does what is asked here.

What TensorFlow Serving calls a model is the ensemble, or one of its members; a version is a release.
`servables` finds them, says what they take and give, and how they stand; `questions` reads a request;
`answers` puts what came back into the form in which it was asked.

The ensemble is asked by feature names, and its features are validated, encoded and scaled. A member is asked as its
model would be asked by TensorFlow Serving, with the tensors that the model takes, by its inputs' own names; or, where
the names are none of these, with the ensemble's features. The signature `features` asks for the latter in any case.
"""
