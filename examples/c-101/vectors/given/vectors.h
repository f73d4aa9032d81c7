#ifndef VECTORS_H
#define VECTORS_H

#include <stdbool.h>

struct vector {
    double x, y;
};

struct vector add(struct vector a, struct vector b);

double length(struct vector v);

/* Are they the same, give or take 1e-9 in each coordinate? */
bool same(struct vector a, struct vector b);

#endif
