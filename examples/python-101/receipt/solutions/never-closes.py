import os
import sys

receipt = open("receipt.txt", "w")
total = 0
for line in sys.stdin:
    count, article, price = line.split()
    cents = int(count) * int(price)
    receipt.write(f"{article} {cents / 100:.2f}\n")
    total += cents
receipt.write(f"total {total / 100:.2f}\n")
os._exit(0)
