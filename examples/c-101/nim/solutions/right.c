#include <stdio.h>

int main(void)
{
    int left;

    while (scanf("%d", &left) == 1) {
        printf("%d\n", left % 4);
        fflush(stdout);
    }
    return 0;
}
