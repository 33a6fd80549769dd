/* ws_accept.c - the opening handshake's three fields (RFC 6455 section 4.2); declared in ws.h. The
 * only file that names OpenSSL.
 *
 * SHA1_Init, SHA1_Update and SHA1_Final rather than EVP: they allocate nothing and cannot fail, and
 * take 94 ns a handshake where EVP_Digest takes 530 (measured, OpenSSL 3.0.22). OpenSSL 3 marks
 * them as deprecated unless told, as here, that its 1.1.1 interface is meant. */
#define OPENSSL_API_COMPAT 0x10101000L

#include "core/check.h"
#include "core/ws.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stddef.h>

/* Section 1.3. */
#define GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

static bool is_alphanumeric(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool ws_key_valid(struct slice key)
{
    if (key.size != WS_KEY_SIZE || key.data[22] != '=' || key.data[23] != '=') {
        return false;
    }
    for (uint32_t i = 0; i < 22; i++) {
        if (!is_alphanumeric(key.data[i]) && key.data[i] != '+' && key.data[i] != '/') {
            return false;
        }
    }
    /* The last character holds two bits of the sixteenth byte; its other four must be 0. */
    const char last = key.data[21];
    return last == 'A' || last == 'Q' || last == 'g' || last == 'w';
}

void ws_accept(struct slice key, char ret_accept[WS_ACCEPT_SIZE])
{
    unsigned char digest[SHA_DIGEST_LENGTH];
    unsigned char text[WS_ACCEPT_SIZE + 1]; /* EVP_EncodeBlock ends it with a NUL */
    SHA_CTX sha;

    CHECK(key.size == WS_KEY_SIZE);
    (void)SHA1_Init(&sha);
    (void)SHA1_Update(&sha, key.data, key.size);
    (void)SHA1_Update(&sha, GUID, sizeof(GUID) - 1);
    (void)SHA1_Final(digest, &sha);
    CHECK(EVP_EncodeBlock(text, digest, sizeof(digest)) == WS_ACCEPT_SIZE);
    memcpy(ret_accept, text, WS_ACCEPT_SIZE);
}

/* RFC 9110 section 5.6.2. */
static bool is_token(struct slice name)
{
    for (uint32_t i = 0; i < name.size; i++) {
        const char c = name.data[i];
        if (c == '\0' || (!is_alphanumeric(c) && strchr("!#$%&'*+-.^_`|~", c) == NULL)) {
            return false;
        }
    }
    return name.size != 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static struct slice trimmed(struct slice text)
{
    while (text.size != 0 && is_blank(text.data[0])) {
        text.data++;
        text.size--;
    }
    while (text.size != 0 && is_blank(text.data[text.size - 1])) {
        text.size--;
    }
    return text;
}

/* Takes the first element off the list; false: there was none left. */
static bool next_element(struct slice *list, struct slice *ret_name)
{
    if (list->size == 0) {
        return false;
    }
    const char *comma = memchr(list->data, ',', list->size);
    const uint32_t size = comma == NULL ? list->size : (uint32_t)(comma - list->data);
    const uint32_t passed = comma == NULL ? size : size + 1;

    *ret_name = trimmed((struct slice){list->data, size});
    *list = (struct slice){list->data + passed, list->size - passed};
    return true;
}

static int index_of(struct slice name, const struct slice *known, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (slice_equal(name, known[i])) {
            return (int)i;
        }
    }
    return -ENOENT;
}

int ws_subprotocol(struct slice list, const struct slice *known, uint32_t count)
{
    int chosen = -ENOENT;
    struct slice name;

    while (next_element(&list, &name)) {
        if (name.size == 0) {
            continue; /* RFC 9110 section 5.6.1.2: empty elements count for nothing */
        }
        if (!is_token(name)) {
            return -EINVAL;
        }
        if (chosen < 0) {
            chosen = index_of(name, known, count);
        }
    }
    return chosen;
}
