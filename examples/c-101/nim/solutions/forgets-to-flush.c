#include <stdio.h>

int main(void)
{
    int left;

    do {
        if (scanf("%d", &left) != 1)
            return 1;
        printf("%d\n", left % 4);
    } while (left > 3);
    return 0;
}
