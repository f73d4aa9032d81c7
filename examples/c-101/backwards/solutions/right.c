#include <stdio.h>
#include <stdlib.h>

/* Returns the next line without its end, NULL when there is none. */
static char *read_line(void)
{
    size_t length = 0, room = 16;
    char *line = malloc(room);
    int c;

    while (line && (c = getchar()) != EOF && c != '\n') {
        line[length++] = (char)c;
        if (length == room)
            line = realloc(line, room *= 2);
    }
    if (!line)
        exit(1);
    if (c == EOF && length == 0) {
        free(line);
        return NULL;
    }
    line[length] = '\0';
    return line;
}

int main(void)
{
    size_t count = 0, room = 16;
    char **lines = malloc(room * sizeof *lines);
    char *line;

    while (lines && (line = read_line())) {
        lines[count++] = line;
        if (count == room)
            lines = realloc(lines, (room *= 2) * sizeof *lines);
    }
    if (!lines)
        return 1;
    while (count > 0) {
        puts(lines[--count]);
        free(lines[count]);
    }
    free(lines);
    return 0;
}
