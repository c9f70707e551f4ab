"""A run from its spec to its trained and evaluated folder."""
