import sys

total = 0
for line in sys.stdin:
    count, article, price = line.split()
    cents = int(count) * int(price)
    print(f"{article} {cents / 100:.2f}")
    total += cents
print(f"total {total / 100:.2f}")
