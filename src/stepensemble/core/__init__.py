"""What an ensemble is and how it answers: pure functions over arrays and typed structures.

Nothing here reads a file, a clock or the network, and nothing imports AWS, TensorFlow or LiteRT. The rooms, in
the order in which a prediction passes through them:

- `manifest`, `task`, `outputs`, `policy`: what a person declares
- `validation`, `soundness`, `coherence`, `problems`: whether it is sound, checked as a whole
- `releases`: the manifest compiled; the pointer; releases compared
- `payload`, `features`, `columns`: what a person asks, encoded as named columns
- `aggregation`, `answer`: what the members said, combined; the output
- `records`, `replay`: what is kept of it, and decided again under other terms
- `limits`, `capacity`: the arithmetic of what a state, an item, a slot and an execution may carry
- `errors`: what can go wrong, drawn as a tree
"""
