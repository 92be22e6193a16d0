"""How the members' outputs become one decision a row, and how sure it is: vectorized over rows.

- `decision`: a policy applied to voters' numbers; everything below is called from there
- `pooling`: the methods, each with its formula and source
- `labels`: from pooled numbers to a label: thresholds, votes, ties
- `uncertainty`: spread, agreement, margin, entropies, and whose removal would flip the label
- `quorum`: who has to have answered
- `probability`: sigmoid, softmax and what they share, numerically stable
"""
