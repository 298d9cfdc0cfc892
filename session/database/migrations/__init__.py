"""Alembic's folder: ``env.py``, and the migrations in ``versions``. Nobody imports it."""
