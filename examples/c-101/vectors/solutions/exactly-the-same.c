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
    return sqrt(v.x * v.x + v.y * v.y);
}

bool same(struct vector a, struct vector b)
{
    return a.x == b.x && a.y == b.y;
}
