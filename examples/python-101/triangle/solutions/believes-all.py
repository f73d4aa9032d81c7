def area(a, b, c):
    s = (a + b + c) / 2
    return abs(s * (s - a) * (s - b) * (s - c)) ** 0.5


if __name__ == "__main__":
    print(area(*map(float, input().split())))
