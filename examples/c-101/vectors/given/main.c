#include <stdio.h>

#include "vectors.h"

int main(void)
{
    struct vector a, b, sum;

    if (scanf("%lf %lf %lf %lf", &a.x, &a.y, &b.x, &b.y) != 4)
        return 1;
    sum = add(a, b);
    printf("sum %.10g %.10g\n", sum.x, sum.y);
    printf("lengths %.10g %.10g\n", length(a), length(b));
    printf("%s\n", same(a, b) ? "the same" : "different");
    return 0;
}
