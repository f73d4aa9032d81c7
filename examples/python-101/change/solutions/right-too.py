amount = int(input())
coins = sorted(map(int, input().split()))
reached = {0: []}
latest = [0]
while amount not in reached:
    further = []
    for part in latest:
        for coin in coins:
            if part + coin <= amount and part + coin not in reached:
                reached[part + coin] = [coin, *reached[part]]
                further.append(part + coin)
    latest = further
print("\n".join(map(str, reached[amount])))
