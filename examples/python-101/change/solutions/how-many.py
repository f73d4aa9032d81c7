amount = int(input())
coins = [int(word) for word in input().split()]
fewest = [0]
for part in range(1, amount + 1):
    fewest.append(1 + min(fewest[part - coin] for coin in coins if coin <= part))
print(fewest[amount])
