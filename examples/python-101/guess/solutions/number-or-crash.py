lowest, highest = 1, int(input())
middle = (lowest + highest) // 2
while True:
    print(middle, flush=True)
    middle += int(input())
