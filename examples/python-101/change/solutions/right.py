amount = int(input())
coins = [int(word) for word in input().split()]
best = [[]]
for part in range(1, amount + 1):
    ways = (best[part - coin] + [coin] for coin in coins if coin <= part)
    best.append(min(ways, key=len))
print(*best[amount])
