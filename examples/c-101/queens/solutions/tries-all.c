#include <stdio.h>
#include <stdlib.h>

static int n, column[12];

static int fits(int row)
{
    for (int other = 0; other < row; other++) {
        int apart = abs(column[other] - column[row]);

        if (apart == 0 || apart == row - other)
            return 0;
    }
    return 1;
}

static int place(int row)
{
    if (row == n) {
        for (int other = 0; other < n; other++)
            if (!fits(other))
                return 0;
        return 1;
    }
    for (column[row] = 0; column[row] < n; column[row]++)
        if (place(row + 1))
            return 1;
    return 0;
}

int main(void)
{
    if (scanf("%d", &n) != 1)
        return 1;
    if (!place(0)) {
        printf("none\n");
        return 0;
    }
    for (int row = 0; row < n; row++) {
        for (int i = 0; i < n; i++)
            putchar(i == column[row] ? 'Q' : '.');
        putchar('\n');
    }
    return 0;
}
