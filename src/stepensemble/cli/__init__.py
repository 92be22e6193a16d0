"""The command line: `ensemble`."""
