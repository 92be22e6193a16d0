"""Converts a model file of any supported format to an artifact that a runtime loads.

- `converter`: the steps, from file to artifact
- `formats`: recognizes a file's format; `safety`: finds what could run code; `keras_2`: reads Keras 2 configurations
- `contract_inference`: infers inputs and outputs from the model
- `parity`: measures how far the converted model is from the original
- `sandbox`: loads and runs artifacts in a child process: `child_process` starts it, `child_main` is its entry point,
  `confinement` restricts what it may do
- `export`: the part that TensorFlow does, in a child process too
"""
