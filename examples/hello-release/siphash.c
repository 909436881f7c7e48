#include "siphash.h"

struct state {
    uint64_t a, b, c, d;
};

static uint64_t rotate(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

static uint64_t little_endian(const unsigned char *bytes, size_t count)
{
    uint64_t word = 0;

    while (count-- > 0)
        word = word << 8 | bytes[count];
    return word;
}

static void mix(struct state *s, int rounds)
{
    while (rounds-- > 0) {
        s->a += s->b, s->b = rotate(s->b, 13) ^ s->a, s->a = rotate(s->a, 32);
        s->c += s->d, s->d = rotate(s->d, 16) ^ s->c;
        s->a += s->d, s->d = rotate(s->d, 21) ^ s->a;
        s->c += s->b, s->b = rotate(s->b, 17) ^ s->c, s->c = rotate(s->c, 32);
    }
}

static void absorb(struct state *s, uint64_t word)
{
    s->d ^= word;
    mix(s, 2);
    s->a ^= word;
}

uint64_t siphash(const unsigned char key[16], const void *data, size_t size)
{
    const unsigned char *bytes = data;
    uint64_t k0 = little_endian(key, 8), k1 = little_endian(key + 8, 8);
    struct state s = {
        k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d,
        k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573,
    };
    size_t whole = size - size % 8;

    for (size_t i = 0; i < whole; i += 8)
        absorb(&s, little_endian(bytes + i, 8));
    absorb(&s, little_endian(bytes + whole, size % 8) | (uint64_t)size << 56);
    s.c ^= 0xff;
    mix(&s, 4);
    return s.a ^ s.b ^ s.c ^ s.d;
}
