#include <stdio.h>

int main(void)
{
    int number;
    unsigned int sum = 0;

    while (scanf("%d", &number) == 1)
        sum += (unsigned int)number;
    printf("%d\n", (int)sum);
    return 0;
}
