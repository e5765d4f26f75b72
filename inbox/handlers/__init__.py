"""The code that does something with a file."""
