/*
 * fuzz_http.c - no head makes the HTTP codec read out of bounds or contradict itself.
 *
 * Method: the input is decoded whole and at every length below. What is good must have been
 *         unfinished at every length before its end; what was refused once must stay refused (H2);
 *         no slice may lie outside the head or hold a control character (H3). Path, query, lists
 * and credentials of what is good go through their helpers.
 */
#include "core/check.h"
#include "core/http.h"

#include <stddef.h>

enum { TEXT_MAX = 2048 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_slice(struct slice slice, struct slice head)
{
    if (slice.data == NULL) {
        CHECK(slice.size == 0);
        return;
    }
    if (slice.data < head.data || slice.data > head.data + head.size) {
        CHECK(slice_equal(slice, SLICE("/"))); /* the path of an absolute target without one */
        return;
    }
    CHECK(slice.size <= (size_t)(head.data + head.size - slice.data));
    for (uint32_t i = 0; i < slice.size; i++) {
        const unsigned char c = (unsigned char)slice.data[i];
        CHECK(c >= 0x20 || c == '\t'); /* H3 */
        CHECK(c != 0x7F);
    }
}

static void use_helpers(const struct http_request *request)
{
    static char out[TEXT_MAX];
    struct slice path = request->path;
    struct slice query = request->query;
    struct slice list = request->accept_encoding;
    struct slice key;
    struct slice value;

    while (http_path_next(&path, &value)) {
        CHECK(http_segment_decode(value, out, sizeof out) <= (int)value.size);
    }
    while (http_query_next(&query, &key, &value)) {
        CHECK(http_query_decode(key, out, sizeof out) <= (int)key.size);
        CHECK(http_query_decode(value, out, sizeof out) <= (int)value.size);
    }
    while (http_list_next(&list, &value)) {
        CHECK(value.size > 0);
    }
    if (http_bearer(request->authorization, &value) == 0) {
        CHECK(value.size > 0 && value.size < request->authorization.size);
    }
}

static void check_request(const struct http_request *request, struct slice head)
{
    CHECK(request->path.size > 0);
    CHECK(request->path.data[0] == '/' || slice_equal(request->path, SLICE("*")));
    CHECK(request->minor == 0 || request->host.data != NULL);
    CHECK(request->has_content_length || request->content_length == 0);
    CHECK(!request->keep_alive || !request->connection_close);
    CHECK(http_method_name(request->method)[0] != 0);
    for (const struct slice *slice = &request->path; slice <= &request->accept_encoding; slice++) {
        check_slice(*slice, head);
    }
    use_helpers(request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct http_limits limits = {
        .head_bytes_max = 1024, .line_bytes_max = 256, .headers_max = 16};
    const char *text = (const char *)data;
    struct http_request request;
    struct http_request earlier;
    bool refused = false;

    if (size > TEXT_MAX) {
        return 0;
    }
    const int whole = http_decode(text, (uint32_t)size, &limits, &request);
    for (uint32_t cut = 0; cut < size; cut++) {
        const int got = http_decode(text, cut, &limits, &earlier);
        CHECK(!refused || got < 0); /* H2 */
        CHECK(whole <= 0 || got == (cut < (uint32_t)whole ? 0 : whole));
        CHECK(whole != 0 || got == 0);
        refused = got < 0;
    }
    CHECK(!refused || whole < 0);
    CHECK(whole >= 0 || http_reason((uint32_t)-whole)[0] != 0);
    if (whole > 0) {
        CHECK((size_t)whole <= size);
        CHECK((uint32_t)whole <= limits.head_bytes_max);
        check_request(&request, (struct slice){text, (uint32_t)whole});
    }
    return 0;
}
