"""Alternatives to this project, each in its best documented form and in a file of its own that names its source."""
