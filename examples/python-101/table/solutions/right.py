n = int(input())
for row in range(1, n + 1):
    print("".join(f"{row * column:4}" for column in range(1, n + 1)))
