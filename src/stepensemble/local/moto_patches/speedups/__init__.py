"""Patches where moto is right but slow. Each can be switched off; the stack then works as before, more slowly."""
