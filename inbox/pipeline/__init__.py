"""The stages, each a gerund that owns one verb. They do not know each other; only `runner` knows their order."""
