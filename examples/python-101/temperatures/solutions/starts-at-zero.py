import sys

count = total = highest = 0
lowest = 1000
for line in sys.stdin:
    temperature = float(line)
    count += 1
    total += temperature
    if temperature < lowest:
        lowest = temperature
    if temperature > highest:
        highest = temperature
if count > 0:
    print(lowest, highest, total / count)
