"""Errors, retry arithmetic, idempotency and logging: what every other layer may rely on."""
