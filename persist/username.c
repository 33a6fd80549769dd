/* username.c - see username.h for the rules. */
#include "persist/username.h"

#include "core/utf8.h"

/* Whether the character of that size at data is a control character: C0, DEL, or C1, which UTF-8
 * writes as C2 80 to C2 9F. */
static bool is_control(const char *data, uint32_t size)
{
    const uint8_t *byte = (const uint8_t *)data;
    return size == 1 ? byte[0] < 0x20 || byte[0] == 0x7f
                     : size == 2 && byte[0] == 0xc2 && byte[1] <= 0x9f;
}

/* Code points of a text, or -1: not UTF-8, or with control characters. */
static int64_t length_of(struct slice text)
{
    int64_t length = 0;

    for (uint32_t at = 0; at < text.size; length++) {
        const uint32_t size = utf8_character(text.data + at, text.size - at);
        if (size == 0 || is_control(text.data + at, size)) {
            return -1;
        }
        at += size;
    }
    return length;
}

bool username_is_text(struct slice text, uint32_t size_max)
{
    return text.size <= size_max && length_of(text) >= 0;
}

bool username_is_valid(struct slice name)
{
    if (name.size > USERNAME_BYTES_MAX) {
        return false;
    }
    const int64_t length = length_of(name);
    return length >= USERNAME_LENGTH_MIN && length <= USERNAME_LENGTH_MAX && name.data[0] != ' ' &&
           name.data[name.size - 1] != ' ';
}

struct username username_fold(struct slice name)
{
    struct username folded = {.size =
                                  name.size < USERNAME_BYTES_MAX ? name.size : USERNAME_BYTES_MAX};

    for (uint32_t i = 0; i < folded.size; i++) {
        const char c = name.data[i];
        folded.bytes[i] = c;
        if (c >= 'A' && c <= 'Z') {
            folded.bytes[i] = (char)(c + ('a' - 'A'));
        }
    }
    return folded;
}

/* Appends up to length characters of what was wanted that may stand in a username. */
static void keep_usable(struct username *name, struct slice wanted, uint32_t length)
{
    for (uint32_t at = 0; at < wanted.size && length > 0;) {
        const char *character = wanted.data + at;
        const uint32_t size = utf8_character(character, wanted.size - at);

        at += size > 0 ? size : 1;
        if (size == 0 || is_control(character, size) || (name->size == 0 && *character == ' ')) {
            continue;
        }
        memcpy(name->bytes + name->size, character, size);
        name->size += size;
        length--;
    }
}

struct username username_variant(struct slice wanted, const char *suffix)
{
    struct username name = {0};

    keep_usable(&name, wanted, USERNAME_LENGTH_MAX - 1 - USERNAME_SUFFIX_LENGTH);
    if (name.size == 0) {
        keep_usable(&name, SLICE("user"), USERNAME_LENGTH_MAX);
    }
    name.bytes[name.size++] = '-';
    memcpy(name.bytes + name.size, suffix, USERNAME_SUFFIX_LENGTH);
    name.size += USERNAME_SUFFIX_LENGTH;
    return name;
}
