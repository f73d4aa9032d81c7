#include <stdio.h>

int main(void)
{
    int n;

    if (scanf("%d", &n) != 1)
        return 1;
    for (int row = 0; row < n; row++) {
        for (int column = 0; column < n; column++)
            putchar(column == row ? 'Q' : '.');
        putchar('\n');
    }
    return 0;
}
