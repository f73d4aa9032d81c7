import sys

bought = [line.split() for line in sys.stdin]
costs = [int(count) * int(price) for count, _, price in bought]
width = max(len(line) for line in bought)
with open("receipt.txt", "w") as receipt:
    for (_, article, _), cents in zip(bought, costs):
        receipt.write(f"{article} {cents / 100:.2f}\n")
    receipt.write(f"total {sum(costs) / 100:.2f}\n")
