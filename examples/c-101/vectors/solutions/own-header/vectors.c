#include <math.h>

#include "vectors.h"

vector add(vector a, vector b)
{
    a.coordinates[0] += b.coordinates[0];
    a.coordinates[1] += b.coordinates[1];
    return a;
}

double length(vector v)
{
    return hypot(v.coordinates[0], v.coordinates[1]);
}
