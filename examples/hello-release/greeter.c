/* greeter: greets everyone it is given, under a key that only its release receives. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "key.h"
#include "siphash.h"

int main(int argc, char **argv)
{
    unsigned char key[KEY_SIZE];
    char problem[128];
    char line[256];

    if (!key_load(key, problem, sizeof problem)) {
        fprintf(stderr, "greeter: %s\n", problem);
        return 1;
    }
    for (int i = 1; i < argc || i == 1; i++) {
        const char *name = i < argc ? argv[i] : "world";
        int length = snprintf(line, sizeof line, "Hello, %s!", name);
        if (length < 0 || (size_t)length >= sizeof line) {
            fprintf(stderr, "greeter: a name of at most %zu bytes, please\n", sizeof line - 9);
            return 2;
        }
        printf("%s  [%016" PRIx64 "]\n", line, siphash(key, line, (size_t)length));
    }
    explicit_bzero(key, sizeof key);
    return fflush(stdout) == 0 ? 0 : 1;
}
