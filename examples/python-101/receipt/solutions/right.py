import sys


def euros(cents):
    return f"{cents // 100}.{cents % 100:02}"


total = 0
with open("receipt.txt", "w") as receipt:
    for line in sys.stdin:
        count, article, price = line.split()
        cents = int(count) * int(price)
        print(article, euros(cents), file=receipt)
        total += cents
    print("total", euros(total), file=receipt)
