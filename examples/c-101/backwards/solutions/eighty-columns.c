#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char buffer[81], **lines = NULL;
    int count = 0;

    while (fgets(buffer, sizeof buffer, stdin)) {
        buffer[strcspn(buffer, "\n")] = '\0';
        lines = realloc(lines, (count + 1) * sizeof *lines);
        lines[count++] = strdup(buffer);
    }
    while (count > 0) {
        puts(lines[--count]);
        free(lines[count]);
    }
    free(lines);
    return 0;
}
