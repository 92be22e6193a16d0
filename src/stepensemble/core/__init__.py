"""What an ensemble is and how it answers: pure functions over arrays and typed structures.

Nothing here reads a file, a clock or the network, and nothing imports AWS, TensorFlow or LiteRT. The rooms, in
the order in which a prediction passes through them:

- `manifest`, `validation`, `problems`: what a person edits, checked as a whole
- `release`: the manifest compiled, named by its digest; which slot serves which member
- `payload`, `features`: what a person asks, encoded as named columns
- `outputs`, `aggregation`, `quorum`, `answer`: what the members said, combined
- `records`: what is kept of it
- `limits`: the arithmetic of what a state, an item and an error may carry
- `errors`: what can go wrong, drawn as a tree
"""
