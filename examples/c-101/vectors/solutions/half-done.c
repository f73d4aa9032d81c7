#include "vectors.h"

struct vector add(struct vector a, struct vector b)
{
    a.x += b.x;
    a.y += b.y;
    return a;
}
