#include <stdio.h>

static int n;
static unsigned rows[12];

/* Squares under attack are bits: of columns, and of diagonals that move with each row. */
static int place(int row, unsigned columns, unsigned left, unsigned right)
{
    unsigned all = (1u << n) - 1;

    if (row == n)
        return 1;
    for (unsigned free = all & ~(columns | left | right); free; free &= free - 1) {
        unsigned queen = free & -free;

        rows[row] = queen;
        if (place(row + 1, columns | queen, (left | queen) << 1, (right | queen) >> 1))
            return 1;
    }
    return 0;
}

int main(void)
{
    if (scanf("%d", &n) != 1)
        return 1;
    if (!place(0, 0, 0, 0)) {
        puts("none");
        return 0;
    }
    for (int row = 0; row < n; row++) {
        for (int bit = n - 1; bit >= 0; bit--)
            putchar(rows[row] >> bit & 1 ? 'Q' : '.');
        putchar('\n');
    }
    return 0;
}
