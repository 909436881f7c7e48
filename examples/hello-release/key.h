#ifndef KEY_H
#define KEY_H

#include <stddef.h>

#define KEY_SIZE 16

/* Reads 32 hexadecimal digits from the file that GREETER_KEY_FILE names, or else from the
 * variable GREETER_KEY. Returns 1, or 0 with the reason in problem. */
int key_load(unsigned char key[KEY_SIZE], char *problem, size_t size);

/* Turns 32 hexadecimal digits, with or without a line end, into a key. Returns 1, or 0. */
int key_parse(unsigned char key[KEY_SIZE], const char *text);

#endif
