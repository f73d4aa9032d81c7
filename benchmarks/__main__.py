"""`python -m benchmarks NAME [--json] [--full] [--database KIND]`: a JSON object, the last line."""

import argparse
import asyncio
import json

from benchmarks import drain, latency, site, sweep
from commserver import logs

BENCHMARKS = {"latency": latency.measure, "drain": drain.measure, "sweep": sweep.measure}
SECONDS = 45.0  # that one benchmark may measure without --full


def main() -> None:
    """Measure what is named, or all."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("name", choices=[*BENCHMARKS, "all"])
    parser.add_argument("--json", action="store_true", help="nothing but the JSON object")
    parser.add_argument("--full", action="store_true", help="as many as the goals are stated for")
    parser.add_argument("--database", choices=site.DATABASES, default="sqlite")
    given = parser.parse_args()
    logs.configure("WARNING")
    for name in BENCHMARKS if given.name == "all" else [given.name]:
        result = asyncio.run(
            BENCHMARKS[name](full=given.full, seconds=SECONDS, database=given.database)
        )
        if not given.json:
            print(
                f"{name}: {result['ours']} {result['unit']}, floor {result['floor']}, "
                f"ratio {result['ratio']} (n = {result['n']})"
            )
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
