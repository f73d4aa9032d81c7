def area(a, b, c):
    s = (a + b + c) / 2
    square = s * (s - a) * (s - b) * (s - c)
    root = 0.0
    while root * root != square:
        root += 1 / 1024
    return root
