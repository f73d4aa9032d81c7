from math import sqrt


def area(a, b, c):
    if min(a, b, c) <= 0 or 2 * max(a, b, c) > a + b + c:
        raise ValueError("no triangle")
    s = (a + b + c) // 2
    return sqrt(s * (s - a) * (s - b) * (s - c))


if __name__ == "__main__":
    print(int(area(*map(int, input().split()))))
