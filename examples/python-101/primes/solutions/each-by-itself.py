def is_prime(number):
    for divisor in range(2, number):
        if number % divisor == 0:
            return False
    return True


n = int(input())
print(sum(is_prime(number) for number in range(2, n + 1)))
