import subprocess
import sys

YEARS = {2024: "yes", 2023: "no", 1996: "yes", 1900: "no", 2000: "yes", 4: "yes"}

right = 0
for year, wanted in YEARS.items():
    try:
        ended = subprocess.run(
            [sys.executable, "leap.py"],
            input=f"{year}\n",
            capture_output=True,
            text=True,
            timeout=2,
        )
    except subprocess.TimeoutExpired:
        print(f"{year}: no answer")
        continue
    if ended.returncode == 0 and ended.stdout.strip() == wanted:
        right += 1
    else:
        print(f"{year}: {ended.stdout.strip()!r}, not {wanted!r} (exit {ended.returncode})")

print(f"{right} of {len(YEARS)} years")
print(f"GRADE: {20 * right // len(YEARS)}")
