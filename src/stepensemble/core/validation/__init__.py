"""Checks a manifest: `structure` its JSON, `manifest` its meaning, `policy` the meaning of its policy."""
