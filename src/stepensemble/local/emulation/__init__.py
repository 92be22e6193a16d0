"""moto in use: its start (`server`), the clients of its tasks, how long executions are kept, and persistence.

What is changed in moto itself is in `stepensemble.local.moto_patches`.
"""
