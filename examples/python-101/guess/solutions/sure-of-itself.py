import sys

lowest, highest = 1, int(input())
while lowest < highest:
    middle = (lowest + highest) // 2
    print(middle, flush=True)
    answer = sys.stdin.readline().strip()
    if answer == "higher":
        lowest = middle + 1
    elif answer == "lower":
        highest = middle - 1
    else:
        lowest = highest = middle
sys.stdin.read()  # no need to say it: there is only one number left
