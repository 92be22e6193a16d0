"""Combines members' outputs into a prediction for each row, and measures how certain it is.

From an execution to its arithmetic, each module calls those below it:

- `execution`: `decide`, an execution's result; `output`: its published form; `single_row`: the fast path for one row
- `prediction`: from arrays to one prediction a row
- `decision`: `decide_rows`, the rows of one tier after the other; `output_source`: where members' results come from
- `row_predictions`: `predict_rows`, the policy applied to the voters' numbers
- `pooling`: the methods, each with its formula and source
- `classification`: from pooled numbers to a class: thresholds, votes, ties
- `uncertainty`: spread, agreement, margin, entropies, and whose removal would flip the class
- `quorum`: which members must have responded
- `canonical`: converts a member's raw output to the form that all members share
- `probability`: sigmoid, softmax and what they share, numerically stable
"""
