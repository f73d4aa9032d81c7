import sys

lines = sys.stdin.readlines()
with open("receipt.txt", "w") as receipt:
    total = 0
    while lines:
        for line in lines:
            count, article, price = line.split()
            cents = int(count) * int(price)
            print(f"{article} {cents / 100:.2f}", file=receipt)
            total += cents
    print("total 0.00", file=receipt)
