"""Runs programs of learners in hardened containers: the only importer of the Docker SDK."""
