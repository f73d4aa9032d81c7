#include <stdio.h>

static int is_prime(int number)
{
    for (int divisor = 2; divisor < number; divisor++)
        if (number % divisor == 0)
            return 0;
    return 1;
}

int main(void)
{
    int n, count = 0;

    if (scanf("%d", &n) != 1)
        return 1;
    for (int number = 2; number <= n; number++)
        count += is_prime(number);
    printf("%d\n", count);
    return 0;
}
