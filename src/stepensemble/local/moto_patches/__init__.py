"""Changes to moto, each with a name: `registry` lists all of them and applies them once a process.

- `corrections`: moto differs from what AWS documents. They cannot be switched off.
- `speedups`: moto is right but slow. Each can be switched off with STEPENSEMBLE_MOTO_SPEEDUPS_OFF.
- `patch`: what a patch is, and the versions of moto and its dependencies that the patches are written for.

docs/emulator.md describes every patch for users; a test compares that page with the registry.
"""
