"""What an ensemble is and how it predicts: pure functions over arrays and typed structures.

Nothing here reads a file, a clock or the network, and nothing imports AWS, TensorFlow or LiteRT. The packages, in
the order in which a prediction passes through them:

- `schema`: what a manifest declares
- `validation`: checks a manifest as a whole; `problems`: how a problem is described
- `releases`: a manifest compiled; the pointer to the current release; two releases compared
- `payload`, `preprocessing`: a request, validated and encoded as named columns
- `aggregation`: members' outputs combined into a prediction
- `record`, `replay`: what is stored of a prediction, and predictions recomputed under another policy
- `state_size`, `slot_capacity`, `number_limits`: how much a state, a slot and a number may hold
- `tolerance`: when two outputs of one model count as equal
- `errors`: every error, drawn as a tree
"""
