#include <stdio.h>

int main(void)
{
    int left;

    if (scanf("%d", &left) != 1)
        return 1;
    for (;;) {
        printf("%d\n", left % 4);
        fflush(stdout);
        if (scanf("%d", &left) != 1)
            return 1; /* it is over: we have won */
    }
}
