n = int(input())
prime = bytearray([0, 0]) + bytearray([1]) * (n - 1)
for number in range(2, int(n**0.5) + 1):
    if prime[number]:
        prime[number * number :: number] = bytes(len(range(number * number, n + 1, number)))
print(sum(prime))
