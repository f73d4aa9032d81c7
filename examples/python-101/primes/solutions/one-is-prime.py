n = int(input())
composite = bytearray(n + 1)
count = 0
for number in range(1, n + 1):
    if not composite[number]:
        count += 1
        if number > 1:
            composite[number * number :: number] = b"\1" * len(range(number * number, n + 1, number))
print(count)
