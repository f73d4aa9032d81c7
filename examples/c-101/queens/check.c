/* check INPUT OUTPUT EXPECTED: is the output a board of queens that leave each other in peace?
   Leaves with 0 for yes, 1 for no, 2 for what is no board at all. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 12

static void leave(int status, const char *why)
{
    printf("%s\n", why);
    exit(status);
}

static FILE *opened(const char *path)
{
    FILE *file = fopen(path, "r");

    if (!file)
        leave(3, path);
    return file;
}

int main(int argc, char **argv)
{
    char word[80], expected[80];
    int column[MOST], n, queens = 0;
    FILE *output;

    if (argc != 4 || fscanf(opened(argv[1]), "%d", &n) != 1 || n < 1 || n > MOST
        || fscanf(opened(argv[3]), "%79s", expected) != 1)
        return 3;
    output = opened(argv[2]);
    if (fscanf(output, "%79s", word) != 1)
        leave(2, "you have printed nothing");
    if (!strcmp(word, "none")) {
        if (!strcmp(expected, "none"))
            return 0;
        leave(1, "there is such a board");
    }
    for (int row = 0; row < n; row++) {
        if (row > 0 && fscanf(output, "%79s", word) != 1)
            leave(2, "there are too few rows");
        if (strlen(word) != (size_t)n || strspn(word, "Q.") != (size_t)n)
            leave(2, "a row is made of as many Q and . as the board is wide");
        for (char *queen = word; (queen = strchr(queen, 'Q')); queen++) {
            if (queens > row)
                leave(1, "two queens stand in the same row");
            column[queens++] = (int)(queen - word);
        }
        if (queens <= row)
            leave(1, "there is no queen in a row");
        for (int other = 0; other < row; other++) {
            if (column[other] == column[row])
                leave(1, "two queens stand in the same column");
            if (abs(column[other] - column[row]) == row - other)
                leave(1, "two queens stand in the same diagonal");
        }
    }
    if (fscanf(output, "%79s", word) == 1)
        leave(2, "something follows after the board");
    return 0;
}
