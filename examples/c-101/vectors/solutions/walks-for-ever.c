#include <math.h>

#include "vectors.h"

struct vector add(struct vector a, struct vector b)
{
    a.x += b.x;
    a.y += b.y;
    return a;
}

double length(struct vector v)
{
    volatile double far = 0;

    while (far * far != v.x * v.x + v.y * v.y)
        far += 0.125;
    return far;
}

bool same(struct vector a, struct vector b)
{
    return fabs(a.x - b.x) < 1e-9 && fabs(a.y - b.y) < 1e-9;
}
