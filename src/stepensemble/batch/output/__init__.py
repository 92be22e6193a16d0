"""From members' outputs to results: `result_table` makes the table, `result_files` writes it."""
