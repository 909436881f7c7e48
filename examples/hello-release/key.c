#include "key.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

int key_parse(unsigned char key[KEY_SIZE], const char *text)
{
    size_t length = strcspn(text, "\r\n");

    if (length != 2 * KEY_SIZE || text[length + strspn(text + length, "\r\n")] != '\0')
        return 0;
    for (size_t i = 0; i < KEY_SIZE; i++) {
        int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return 0;
        key[i] = (unsigned char)(high << 4 | low);
    }
    return 1;
}

int key_load(unsigned char key[KEY_SIZE], char *problem, size_t size)
{
    const char *path = getenv("GREETER_KEY_FILE");
    const char *text = getenv("GREETER_KEY");
    char buffer[64] = "";

    if (path != NULL) {
        FILE *file = fopen(path, "r");
        if (file == NULL) {
            snprintf(problem, size, "%s: %s", path, strerror(errno));
            return 0;
        }
        size_t got = fread(buffer, 1, sizeof buffer - 1, file);
        buffer[got] = '\0';
        fclose(file);
        text = buffer;
    }
    if (text == NULL) {
        snprintf(problem, size, "no key: set GREETER_KEY_FILE or GREETER_KEY");
        return 0;
    }
    int good = key_parse(key, text);
    if (!good)
        snprintf(problem, size, "the key is not %d hexadecimal digits", 2 * KEY_SIZE);
    explicit_bzero(buffer, sizeof buffer);
    return good;
}
