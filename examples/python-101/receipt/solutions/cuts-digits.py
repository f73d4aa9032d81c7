import sys

total = 0
with open("receipt.txt", "w") as receipt:
    for line in sys.stdin:
        count, article, price = line.split()
        cents = int(count) * int(price)
        print(article, cents / 100, file=receipt)
        total += cents
    print("total", f"{total / 100:.2f}", file=receipt)
