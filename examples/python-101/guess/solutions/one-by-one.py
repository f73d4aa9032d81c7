import sys

for guess in range(1, int(input()) + 1):
    print(guess, flush=True)
    if sys.stdin.readline().strip() not in ("higher", "lower"):
        break
