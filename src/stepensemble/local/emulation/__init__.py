"""moto, with what it lacks: its start (`server`), corrections, speed-ups and persistence."""
