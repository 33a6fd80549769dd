/*
 * test_wire.c - the loader's small codecs: JSON fields, WebSocket frames, signed tokens.
 *
 * Method: the examples of RFC 6455 and RFC 7519's neighbours, damaged input, and every prefix of
 *         good input, which must never be taken for the whole.
 */
#include "bench/fields.h"
#include "bench/token.h"
#include "bench/wsclient.h"
#include "core/check.h"

#include <errno.h>
#include <unistd.h>

static int scan(const char *text, struct fields *ret)
{
    return fields_scan(text, strlen(text), ret);
}

static void fields_come_in_any_order_and_unknown_ones_are_skipped(void)
{
    struct fields f;

    CHECK(scan("{\"text\":\"a\\\"}{b\",\"data\":{\"seq\":9,\"x\":[1,{\"y\":\"]}\"}]},\"seq\":134,"
               " \"room_id\" : \"r\" ,\"type\":\"message\",\"n\":null,\"f\":-1.5e3}",
               &f) == 0);
    CHECK(FIELDS_IS(f.type, "message"));
    CHECK(FIELDS_IS(f.room_id, "r"));
    CHECK(FIELDS_IS(f.text, "a\\\"}{b"));
    CHECK(f.seq == 134);
    CHECK(f.present == FIELDS_SEQ);
    CHECK(scan("{}", &f) == 0);
    CHECK(f.present == 0);
}

static void damaged_json_is_refused(void)
{
    static const char *const damaged[] = {
        "",
        "{",
        "[]",
        "{\"seq\":}",
        "{\"seq\":1",
        "{\"seq\" 1}",
        "{\"a\":\"}",
        "{\"seq\":1}x",
        "{\"seq\":1,}",
        "{\"a\":{\"b\":1}",
        "{\"seq\":1,\"seq\":2}",
        "{\"type\":\"a\",\"type\":\"b\"}",
        "{\"a\":\"\n\"}",
        "{\"seq\":99999999999999999999}",
    };
    struct fields f;

    for (size_t i = 0; i < sizeof(damaged) / sizeof(damaged[0]); i++) {
        CHECK(scan(damaged[i], &f) == -EBADMSG);
    }
}

static void every_prefix_of_an_object_is_refused(void)
{
    static const char whole[] =
        "{\"type\":\"ack\",\"id\":4,\"room_id\":\"r\",\"seq\":134,\"data\":[{\"a\":\"\\\\\"}]}";
    struct fields f;

    for (size_t size = 0; size + 1 < sizeof(whole) - 1; size++) {
        char copy[sizeof(whole)]; /* so that a sanitizer sees a read beyond size */
        memcpy(copy + sizeof(copy) - size, whole, size);
        CHECK(fields_scan(copy + sizeof(copy) - size, size, &f) == -EBADMSG);
    }
    CHECK(fields_scan(whole, sizeof(whole) - 1, &f) == 0);
}

/* RFC 6455 section 5.7: an unmasked "Hello", and a masked one. */
static void frames_are_those_of_the_rfc(void)
{
    static const uint8_t plain[] = {0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f};
    static const uint8_t masked[] = {0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d,
                                     0x7f, 0x9f, 0x4d, 0x51, 0x58};
    struct wsclient_frame frame;
    uint8_t out[32];
    size_t need = 0;

    CHECK(wsclient_decode(plain, sizeof(plain), &frame, &need) == sizeof(plain));
    CHECK(frame.opcode == WSCLIENT_TEXT);
    CHECK(slice_equal(frame.payload, SLICE("Hello")));
    for (size_t size = 0; size < sizeof(plain); size++) {
        CHECK(wsclient_decode(plain, size, &frame, &need) == 0);
    }
    CHECK(wsclient_encode(out, WSCLIENT_TEXT, SLICE("Hello"), 0x3d21fa37) == sizeof(masked));
    CHECK(memcmp(out, masked, sizeof(masked)) == 0);
    CHECK(wsclient_decode(masked, sizeof(masked), &frame, &need) == -EPROTO);
}

static void long_frames_have_long_heads(void)
{
    static uint8_t out[70000];
    static char text[65535];
    struct wsclient_frame frame;
    size_t need = 0;

    memset(text, 'a', sizeof(text));
    CHECK(wsclient_encode(out, WSCLIENT_TEXT, (struct slice){text, 126}, 0) == 126 + 8);
    CHECK(out[1] == (0x80 | 126));
    CHECK(out[2] == 0);
    CHECK(out[3] == 126);
    CHECK(wsclient_encode(out, WSCLIENT_TEXT, (struct slice){text, 65535}, 0x01020304) == 65543);
    CHECK(out[8 + 65534] == ('a' ^ 2)); /* byte 65534 of the payload meets byte 2 of the mask */
    memcpy(out, "\x81\x7f\0\0\0\0\0\x01\x00\x01", 10);
    CHECK(wsclient_decode(out, 10, &frame, &need) == 0);
    CHECK(need == 65537 + 10);
    CHECK(wsclient_decode(out, sizeof(out), &frame, &need) == 65537 + 10);
    memcpy(out, "\x81\x7f\x80\0\0\0\0\x01\x00\x01", 10);
    CHECK(wsclient_decode(out, sizeof(out), &frame, &need) == -EPROTO);
}

static void fragments_and_reserved_bits_are_refused(void)
{
    static const uint8_t first[] = {0x01, 0xc1, 0x80, 0x82, 0x83};
    struct wsclient_frame frame;
    size_t need = 0;

    for (size_t i = 0; i < sizeof(first); i++) {
        const uint8_t frame_bytes[] = {first[i], 0};
        CHECK(wsclient_decode(frame_bytes, 2, &frame, &need) == -EPROTO);
    }
}

static void only_the_right_accept_opens(void)
{
    static const char good[] = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n"
                               "sec-websocket-accept:  s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    static const char bad[] = "HTTP/1.1 101 Switching Protocols\r\n"
                              "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOO=\r\n\r\n";
    static const char refused[] = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
    int status = 0;

    CHECK(wsclient_response(good, sizeof(good) - 1, &status) == sizeof(good) - 1);
    for (size_t size = 0; size < sizeof(good) - 1; size++) {
        CHECK(wsclient_response(good, size, &status) == 0);
    }
    CHECK(wsclient_response(bad, sizeof(bad) - 1, &status) == -EPROTO);
    CHECK(wsclient_response(refused, sizeof(refused) - 1, &status) == -EPROTO);
    CHECK(status == 401);
    CHECK(wsclient_response("SSH-2.0-x y\r\n\r\n", 15, &status) == -EPROTO);
}

/* Signed by python3-jwt with the same key and claims. */
static void token_is_signed_as_others_sign(void)
{
    static const char expected[] =
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
        "eyJpc3MiOiJkYW1zbyIsImF1ZCI6ImRhbXNvIiwic3ViIjoiYmVuY2gtNyIsIm5hbWUiOiJiZW5jaC03"
        "IiwiaWF0IjoxNjk5OTk5OTk5LCJuYmYiOjE2OTk5OTk5OTksImV4cCI6MTcwMDAwMDkwMH0."
        "31UvKIjTYvSF8J0SUYIE1oHEtQJ-O8P20SjgNRzcjTY";
    struct token_key key;
    char token[TOKEN_BYTES_MAX];

    memcpy(key.text, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", 64);
    CHECK(token_sign(&key, 7, 1700000000, token, sizeof(token)) == sizeof(expected) - 1);
    CHECK(strcmp(token, expected) == 0);
    CHECK(token_sign(&key, 7, 1700000000, token, TOKEN_BYTES_MAX - 1) == -ENOSPC);
}

static int read_key(const char *content, struct token_key *ret)
{
    char path[] = "token-key-XXXXXX";
    const int file = mkstemp(path);

    CHECK(file >= 0);
    CHECK(write(file, content, strlen(content)) == (ssize_t)strlen(content));
    CHECK(close(file) == 0);
    const int result = token_key_read(path, ret);
    CHECK(unlink(path) == 0);
    return result;
}

#define HEX_63 "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcde"

static void key_file_is_one_line_of_64_hex_characters(void)
{
    struct token_key key;

    CHECK(read_key(HEX_63 "f\n", &key) == 0);
    CHECK(memcmp(key.text, HEX_63 "f", TOKEN_KEY_CHARACTERS) == 0);
    CHECK(read_key(HEX_63 "f", &key) == 0);
    CHECK(read_key(HEX_63 "\n", &key) == -EBADMSG);
    CHECK(read_key(HEX_63 "g\n", &key) == -EBADMSG);
    CHECK(read_key(HEX_63 "ff\n", &key) == -EBADMSG);
    CHECK(read_key("", &key) == -EBADMSG);
    CHECK(token_key_read("no-such-file", &key) == -ENOENT);
}

int main(void)
{
    fields_come_in_any_order_and_unknown_ones_are_skipped();
    damaged_json_is_refused();
    every_prefix_of_an_object_is_refused();
    frames_are_those_of_the_rfc();
    long_frames_have_long_heads();
    fragments_and_reserved_bits_are_refused();
    only_the_right_accept_opens();
    token_is_signed_as_others_sign();
    key_file_is_one_line_of_64_hex_characters();
    puts("9 passed, 0 failed");
    return 0;
}
