amount = int(input())
coins = [int(word) for word in input().split()]
best = [[]]
for part in range(1, amount + 1):
    best.append(min((best[part - coin] + [coin] for coin in coins if coin <= part), key=len))
if best[amount]:
    print("Your change:", *best[amount])
