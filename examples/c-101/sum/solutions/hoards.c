#include <stdlib.h>
#include <string.h>

int main(void)
{
    for (;;) {
        char *page = malloc(1 << 20);

        if (page)
            memset(page, 1, 1 << 20);
    }
}
