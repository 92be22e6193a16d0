"""The commands, grouped by what they work on; each parses its options, makes one call and prints the result."""
