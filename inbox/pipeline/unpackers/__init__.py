"""
Unpackers: processes of their own that take settled drops, so that no archive keeps another from being taken.

The intake hands over and remembers; an unpacker locks, hashes, claims, extracts and registers, and says what became of
it. One that dies or hangs costs its archive an attempt, and nobody else anything.
"""
