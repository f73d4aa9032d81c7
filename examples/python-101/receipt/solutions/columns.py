import sys

total = 0
with open("receipt.txt", "w") as receipt:
    for line in sys.stdin:
        count, article, price = line.split()
        cents = int(count) * int(price)
        print(f"{article:<12}{cents / 100:8.2f}", file=receipt)
        total += cents
    print(f"{'total':<12}{total / 100:8.2f}", file=receipt)
