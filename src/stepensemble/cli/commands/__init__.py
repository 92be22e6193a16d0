"""The commands, grouped by what they work on. Each parses its options, makes one call and prints the result."""
