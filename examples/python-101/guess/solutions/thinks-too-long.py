import sys

lowest, highest = 1, int(input())
possible = list(range(1, highest + 1))
while possible:
    middle = possible[len(possible) // 2]
    print(middle, flush=True)
    answer = sys.stdin.readline().strip()
    if answer == "higher":
        while possible[0] <= middle:
            possible.remove(possible[0])
    elif answer == "lower":
        while possible[-1] >= middle:
            possible.remove(possible[-1])
    else:
        break
