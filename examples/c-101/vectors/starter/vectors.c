#include "vectors.h"

struct vector add(struct vector a, struct vector b)
{
    return a; /* not yet */
}
