"""Combines members' outputs into a prediction for each row, and measures how certain it is.

- `canonical`: brings a member's raw output to the form that all members share
- `prediction`: the output of an execution; `single_row`: the same for one row, many times as fast
- `decision`: applies a policy to the voters' numbers; it calls everything below
- `pooling`: the methods, each with its formula and source
- `classification`: from pooled numbers to a class: thresholds, votes, ties
- `uncertainty`: spread, agreement, margin, entropies, and whose removal would flip the class
- `quorum`: which members must have predicted
- `probability`: sigmoid, softmax and what they share, numerically stable
"""
