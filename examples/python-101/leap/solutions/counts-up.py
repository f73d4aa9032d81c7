year = int(input())
leap = 0
while leap != year:
    leap += 4
    if leap % 100 == 0 and leap % 400 != 0:
        leap += 4
print("yes")
