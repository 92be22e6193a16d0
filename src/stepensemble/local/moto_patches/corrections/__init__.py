"""Patches where moto differs from what AWS documents."""
