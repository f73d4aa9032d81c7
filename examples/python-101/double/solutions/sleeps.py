import time

number = int(input())
if number < 0:
    time.sleep(3600)
print(number * 2)
