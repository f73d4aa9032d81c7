"""What commserver costs beside what it could cost at least: `python -m benchmarks NAME --json`."""
