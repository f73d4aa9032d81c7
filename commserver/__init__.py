"""A server that runs students' submissions in hardened Docker containers."""

__version__ = "0.1.0"  # as in pyproject.toml
