#include <stdio.h>

int main(void)
{
    int left;

    while (scanf("%d", &left) == 1) {
        for (int i = 0; i < left % 4; i++)
            putchar('|');
        putchar('\n');
        fflush(stdout);
    }
    return 0;
}
