highest = int(input())
print(highest // 2 + 1, flush=True)
