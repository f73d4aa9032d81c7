#include <math.h>

#include "vectors.h"

struct vector add(struct vector a, struct vector b)
{
    return (struct vector){a.x + b.x, a.y + b.y};
}

double length(struct vector v)
{
    return hypot(v.x, v.y);
}

bool same(struct vector a, struct vector b)
{
    return fabs(a.x - b.x) <= 1e-9 && fabs(a.y - b.y) <= 1e-9;
}
