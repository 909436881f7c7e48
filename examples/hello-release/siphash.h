#ifndef SIPHASH_H
#define SIPHASH_H

#include <stddef.h>
#include <stdint.h>

/* SipHash-2-4 (Aumasson and Bernstein, 2012): a 64-bit tag of size bytes under a 16-byte key. */
uint64_t siphash(const unsigned char key[16], const void *data, size_t size);

#endif
