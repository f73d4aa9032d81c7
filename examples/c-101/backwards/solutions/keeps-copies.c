#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *text = calloc(1, 1), *line = NULL;
    size_t room = 0;

    /* Puts each line in front of all that was read before, in a new place. */
    while (getline(&line, &room, stdin) != -1) {
        char *longer = malloc(strlen(line) + strlen(text) + 2);

        strcpy(longer, line);
        if (!strchr(longer, '\n'))
            strcat(longer, "\n");
        strcat(longer, text);
        text = longer;
    }
    fputs(text, stdout);
    free(text);
    return 0;
}
