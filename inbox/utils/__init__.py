"""Helpers that know nothing of inbox: files and time."""
