number = int(input())
double = 0
while number != 0:  # never reached from below
    double += 2
    number -= 1
print(double)
