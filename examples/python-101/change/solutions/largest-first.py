amount = int(input())
for coin in sorted(map(int, input().split()), reverse=True):
    while amount >= coin:
        print(coin)
        amount -= coin
