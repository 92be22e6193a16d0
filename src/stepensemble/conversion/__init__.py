"""From a model file of any kind to an artifact that a runtime loads.

- `converting`: what is done with a file, and what comes of it
- `formats`: which kind of file it is; `safety`: whether it could do harm
- `deduction`: what a model tells of its inputs and outputs
- `parity`: how far the converted model is from the original
- `trial`: load and ask artifacts in a process of their own, by `child` and `work`
- `export`: the part that TensorFlow does, in a child too
"""
