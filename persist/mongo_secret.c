/* mongo_secret.c - see mongo_secret.h. */
#include "persist/mongo_secret.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { RUN = 4, SECRET_MAX = 4096 };

static bool has_run(const char *text, const char *secret, size_t size)
{
    const size_t run = size < RUN ? size : RUN;

    for (size_t i = 0; run > 0 && i + run <= size; i++) {
        if (memmem(text, strlen(text), secret + i, run) != NULL) {
            return true;
        }
    }
    return false;
}

/* Value of a hexadecimal digit, or -1. */
static int digit_of(char c)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    const char *found = c != '\0' ? strchr(digits, c) : NULL;
    return found != NULL ? (int)(found - digits) % 16 : -1;
}

/* Takes %XX out; what is no escape stays as it is. Returns how many bytes it wrote. */
static size_t decode(const char *from, size_t size, char ret[SECRET_MAX])
{
    size_t used = 0;

    for (size_t i = 0; i < size; used++) {
        const int high = from[i] == '%' && i + 2 < size ? digit_of(from[i + 1]) : -1;
        const int low = high >= 0 ? digit_of(from[i + 2]) : -1;
        ret[used] = from[i];
        if (low >= 0) {
            ret[used] = (char)(uint8_t)(high * 16 + low);
        }
        i += low >= 0 ? 3 : 1;
    }
    return used;
}

static bool shows(const char *text, const char *secret, size_t size)
{
    char decoded[SECRET_MAX];
    const size_t bounded = size < SECRET_MAX ? size : SECRET_MAX;
    return has_run(text, secret, size) || has_run(text, decoded, decode(secret, bounded, decoded));
}

bool mongo_secret_shows(const char *text, const char *uri)
{
    static const char *const options[] = {"password=", "token:", "token%3a"};
    const char *user = strstr(uri, "://");
    const char *at = strrchr(uri, '@');
    const char *password = user != NULL ? strchr(user + 3, ':') : NULL;

    if (password != NULL && at != NULL && password < at &&
        shows(text, password + 1, (size_t)(at - password - 1))) {
        return true;
    }
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        const char *value = strcasestr(uri, options[i]);
        value = value != NULL ? value + strlen(options[i]) : NULL;
        if (value != NULL && shows(text, value, strcspn(value, "&,"))) {
            return true;
        }
    }
    return false;
}
