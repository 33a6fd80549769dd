/* redis_url.c - see redis_url.h for the invariant U1 named below. */
#include "persist/redis_url.h"

#include "core/slice.h"
#include "persist/redis.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SEE_ENCODED " (: / ? # @ % in a user or password are written %3A %2F %3F %23 %40 %25)"

static int hex(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    const char lower = (char)(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* Percent-decodes into ret, terminated. NULL, or what is wrong. */
static const char *decode(struct slice text, char *ret, size_t size)
{
    size_t used = 0;

    for (uint32_t i = 0; i < text.size; i++) {
        char c = text.data[i];
        if (c == '%') {
            const int high = i + 2 < text.size ? hex(text.data[i + 1]) : -1;
            const int low = i + 2 < text.size ? hex(text.data[i + 2]) : -1;
            if (high < 0 || low < 0 || (high == 0 && low == 0)) {
                return "a % without two hexadecimal digits (%25 is a % itself), or a %00";
            }
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (used + 1 >= size) {
            return "user, password or path are too long";
        }
        ret[used++] = c;
    }
    ret[used] = 0;
    return NULL;
}

/* The part before the first (or last) separator; rest is what lies behind it, with NULL data if
 * there is no separator. */
static struct slice split(struct slice text, char separator, bool last, struct slice *rest)
{
    const char *at =
        last ? memrchr(text.data, separator, text.size) : memchr(text.data, separator, text.size);
    if (at == NULL) {
        *rest = (struct slice){NULL, 0};
        return text;
    }
    const uint32_t size = (uint32_t)(at - text.data);
    *rest = (struct slice){at + 1, text.size - size - 1};
    return (struct slice){text.data, size};
}

static bool number(struct slice text, uint32_t max, uint32_t *ret)
{
    uint32_t value = 0;

    if (text.size == 0 || text.size > 6) {
        return false;
    }
    for (uint32_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            return false;
        }
        value = value * 10 + (uint32_t)(text.data[i] - '0');
    }
    *ret = value;
    return value <= max;
}

static const char *parse_user(struct slice text, struct redis_url *url)
{
    struct slice password;
    const struct slice user = split(text, ':', false, &password);
    const char *wrong = decode(user, url->user, sizeof(url->user));

    if (wrong != NULL) {
        return wrong;
    }
    if (password.data == NULL) {
        return user.size == 0 ? NULL : "a user without a password (a password alone is :PASSWORD@)";
    }
    url->signs_in = true;
    return decode(password, url->password, sizeof(url->password));
}

static bool is_host(struct slice text, const char *more)
{
    for (uint32_t i = 0; i < text.size; i++) {
        const char c = text.data[i];
        const char lower = (char)(c | 0x20);
        const bool plain = (c >= '0' && c <= '9') || (lower >= 'a' && lower <= 'z');
        if (!plain && (c == 0 || strchr(more, c) == NULL)) {
            return false;
        }
    }
    return text.size > 0 && text.size < REDIS_URL_HOST_BYTES;
}

static const char *parse_host(struct slice text, struct redis_url *url)
{
    struct slice port = {NULL, 0};
    struct slice host;

    if (text.size > 0 && text.data[0] == '[') {
        struct slice rest;
        host = split((struct slice){text.data + 1, text.size - 1}, ']', false, &rest);
        if (rest.data == NULL || !is_host(host, ":.%") ||
            memchr(host.data, ':', host.size) == NULL) {
            return "the brackets hold no IPv6 address";
        }
        if (rest.size > 0 && rest.data[0] != ':') {
            return "there is more than a port behind the brackets";
        }
        port = rest.size > 0 ? (struct slice){rest.data + 1, rest.size - 1} : port;
    } else {
        host = split(text, ':', false, &port);
        if (host.size == 0) {
            return "there is no host" SEE_ENCODED;
        }
        if (!is_host(host, ".-_")) {
            return "the host has characters that no host has" SEE_ENCODED;
        }
    }
    url->port = REDIS_URL_PORT;
    if (port.data != NULL && (!number(port, UINT16_MAX, &url->port) || url->port == 0)) {
        return "the port is no number from 1 to 65535" SEE_ENCODED;
    }
    memcpy(url->host, host.data, host.size);
    url->host[host.size] = 0;
    return NULL;
}

/* What stands behind redis:// or rediss://. */
static const char *parse_tcp(struct slice text, struct redis_url *url)
{
    struct slice db;
    struct slice host;
    const struct slice authority = split(text, '/', false, &db);
    struct slice user = split(authority, '@', true, &host);

    if (host.data == NULL) {
        host = user;
        user = (struct slice){NULL, 0};
    }
    const char *wrong = user.data == NULL ? NULL : parse_user(user, url);
    if (wrong == NULL) {
        wrong = parse_host(host, url);
    }
    if (wrong == NULL && db.size > 0 && !number(db, 999999, &url->db)) {
        wrong = "behind the host's / there is no database number" SEE_ENCODED;
    }
    return wrong;
}

/* What stands behind unix://. */
static const char *parse_unix(struct slice text, struct redis_url *url)
{
    struct slice query;
    const struct slice whole = split(text, '?', false, &query);
    const char *slash = memchr(whole.data, '/', whole.size);

    if (slash == NULL || (slash > whole.data && slash[-1] != '@')) {
        return "unix:// is not followed by the path of a socket, from / on" SEE_ENCODED;
    }
    if (slash > whole.data) {
        const struct slice user = {whole.data, (uint32_t)(slash - whole.data) - 1};
        const char *wrong = parse_user(user, url);
        if (wrong != NULL) {
            return wrong;
        }
    }
    const struct slice path = {slash, whole.size - (uint32_t)(slash - whole.data)};
    const char *wrong = decode(path, url->host, REDIS_URL_PATH_MAX + 1);
    if (wrong == NULL && query.data != NULL &&
        (query.size < 3 || memcmp(query.data, "db=", 3) != 0 ||
         !number((struct slice){query.data + 3, query.size - 3}, 999999, &url->db))) {
        wrong = "what follows the ? is not db= and a number";
    }
    return wrong;
}

static const char *parse(struct slice text, struct redis_url *url)
{
    static const struct {
        struct slice begin;
        enum redis_scheme scheme;
    } schemes[] = {
        {{"redis://", 8}, REDIS_SCHEME_TCP},
        {{"rediss://", 9}, REDIS_SCHEME_TLS},
        {{"unix://", 7}, REDIS_SCHEME_UNIX},
    };

    for (uint32_t i = 0; i < text.size; i++) {
        if ((unsigned char)text.data[i] <= ' ' || text.data[i] == 0x7F) {
            return "there is a blank or a control character in it";
        }
    }
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        const struct slice begin = schemes[i].begin;
        if (text.size >= begin.size && memcmp(text.data, begin.data, begin.size) == 0) {
            const struct slice rest = {text.data + begin.size, text.size - begin.size};
            url->scheme = schemes[i].scheme;
            return url->scheme == REDIS_SCHEME_UNIX ? parse_unix(rest, url) : parse_tcp(rest, url);
        }
    }
    return "it begins with none of redis://, rediss:// and unix://";
}

int redis_url_parse(const char *text, struct redis_url *ret, char *ret_why, size_t why_size)
{
    struct redis_url url = {0};
    const size_t size = strnlen(text, REDIS_URL_BYTES_MAX);
    const char *wrong = size == REDIS_URL_BYTES_MAX
                            ? "it is too long"
                            : parse((struct slice){text, (uint32_t)size}, &url);

    if (wrong == NULL) {
        *ret = url;
    } else {
        (void)snprintf(ret_why, why_size, "the Redis URL: %s", wrong); /* U1 */
    }
    explicit_bzero(&url, sizeof(url));
    return wrong == NULL ? 0 : -EINVAL;
}
