#include <stdio.h>

static char composite[2000001];

int main(void)
{
    int n, count = 0

    if (scanf("%d", &n) != 1)
        return 1;
    for (int number = 2; number <= n; number++) {
        if (composite[number])
            continue;
        count++;
        for (long long multiple = (long long)number * number; multiple <= n; multiple += number)
            composite[multiple] = 1;
    }
    printf("%d\n", count);
    return 0;
}
