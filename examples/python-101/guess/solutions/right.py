import sys

lowest, highest = 1, int(input())
while True:
    middle = (lowest + highest) // 2
    print(middle, flush=True)
    answer = sys.stdin.readline().strip()
    if answer == "higher":
        lowest = middle + 1
    elif answer == "lower":
        highest = middle - 1
    else:  # that was it
        break
