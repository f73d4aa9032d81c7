"""A server that runs students' submissions in hardened Docker containers."""
