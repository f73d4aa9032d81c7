def change(amount, coins):
    if amount == 0:
        return []
    ways = [[coin] + change(amount - coin, coins) for coin in coins if coin <= amount]
    return min(ways, key=len)


amount = int(input())
print(*change(amount, [int(word) for word in input().split()]))
