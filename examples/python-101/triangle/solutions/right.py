from math import sqrt


def area(a, b, c):
    longest = max(a, b, c)
    if min(a, b, c) <= 0 or longest > a + b + c - longest:
        raise ValueError(f"there is no triangle with sides {a}, {b}, {c}")
    s = (a + b + c) / 2
    return sqrt(s * (s - a) * (s - b) * (s - c))


if __name__ == "__main__":
    print(area(*map(float, input().split())))
