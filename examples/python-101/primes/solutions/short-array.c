#include <stdio.h>

int main(void)
{
    static int primes[100];
    int n, count = 0;

    if (scanf("%d", &n) != 1)
        return 1;
    for (int number = 2; number <= n; number++) {
        int i = 0;

        while (i < count && number % primes[i] != 0)
            i++;
        if (i == count)
            primes[count++] = number;
    }
    printf("%d\n", count);
    return 0;
}
