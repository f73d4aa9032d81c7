import sys

temperatures = [float(line) for line in sys.stdin]
mean = sum(temperatures) / len(temperatures)
print(min(temperatures), max(temperatures), mean)
