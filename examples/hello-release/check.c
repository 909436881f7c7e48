/* The project's own tests: run by `make check`, and in the enclave by every release build. */

#include <stdio.h>

#include "key.h"
#include "siphash.h"

static int failures;

static void expect(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "FAILED: %s\n", what);
        failures++;
    }
}

int main(void)
{
    unsigned char key[KEY_SIZE], data[15];

    expect(key_parse(key, "000102030405060708090a0b0c0d0e0f\n"), "32 digits are a key");
    expect(!key_parse(key, "000102030405060708090a0b0c0d0e0"), "31 digits are no key");
    expect(!key_parse(key, "000102030405060708090a0b0c0d0e0g"), "a letter g is no digit");
    expect(!key_parse(key, ""), "nothing is no key");

    key_parse(key, "000102030405060708090a0b0c0d0e0f");
    for (unsigned char i = 0; i < sizeof data; i++)
        data[i] = i;
    expect(siphash(key, data, sizeof data) == 0xa129ca6149be45e5, "the published test vector");
    expect(siphash(key, data, 0) == 0x726fdb47dd0e0e31, "the tag of nothing");
    return failures == 0 ? 0 : 1;
}
