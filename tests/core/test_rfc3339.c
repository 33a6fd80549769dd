/*
 * test_rfc3339.c - every day from 1970 to 9999 is written right, and read back.
 *
 * Method: against gmtime_r of the C library; examples of RFC 3339 section 5.8; whatever is no
 *         date-time is refused and leaves the result as it was.
 */
#include "core/check.h"
#include "core/rfc3339.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define DAY_MS UINT64_C(86400000)

static void expect(uint64_t ms, const char *text)
{
    struct rfc3339_cache cache = {0};
    char dst[RFC3339_SIZE];

    rfc3339_format(&cache, ms, dst);
    CHECK(strlen(text) == RFC3339_SIZE);
    CHECK(memcmp(dst, text, RFC3339_SIZE) == 0);
}

static void known_moments(void)
{
    expect(0, "1970-01-01T00:00:00.000Z");
    expect(1, "1970-01-01T00:00:00.001Z");
    expect(951782399999, "2000-02-28T23:59:59.999Z");
    expect(951782400000, "2000-02-29T00:00:00.000Z");
    expect(1795253400123, "2026-11-21T09:30:00.123Z");
    expect(4107542400000, "2100-03-01T00:00:00.000Z"); /* no leap day before it */
    expect(RFC3339_MAX_MS, "9999-12-31T23:59:59.999Z");
    expect(RFC3339_MAX_MS + 1, "9999-12-31T23:59:59.999Z");
    expect(UINT64_MAX, "9999-12-31T23:59:59.999Z");
}

static void every_day_is_written_and_read_back(void)
{
    struct rfc3339_cache cache = {0};
    char dst[RFC3339_SIZE];
    uint32_t days = 0;

    for (uint64_t ms = 0; ms <= RFC3339_MAX_MS; ms += DAY_MS, days++) {
        const uint64_t moment = ms + ms / DAY_MS * 7919 % DAY_MS; /* another time each day */
        const time_t second = (time_t)(moment / 1000);
        struct tm parts;
        char date[64];
        uint64_t back = 0;
        CHECK(gmtime_r(&second, &parts) != NULL);
        CHECK(strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &parts) == 19);
        rfc3339_format(&cache, moment, dst);
        CHECK(memcmp(dst, date, 19) == 0);
        CHECK(rfc3339_parse(dst, sizeof(dst), &back) == 0);
        CHECK(back == moment);
    }
    CHECK(days == 2932897);
}

static void the_cache_never_shows_another_second(void)
{
    struct rfc3339_cache cache = {0};
    char dst[RFC3339_SIZE];
    const uint64_t moments[] = {0, 999, 1000, 999, 61000, 61999, 0, 1795253400123, 1795253400124};

    for (uint32_t i = 0; i < sizeof(moments) / sizeof(moments[0]); i++) {
        uint64_t back = 0;
        rfc3339_format(&cache, moments[i], dst);
        CHECK(rfc3339_parse(dst, sizeof(dst), &back) == 0);
        CHECK(back == moments[i]);
    }
}

static void parses(const char *text, uint64_t expected)
{
    uint64_t ms = 42;

    CHECK(rfc3339_parse(text, strlen(text), &ms) == 0);
    CHECK(ms == expected);
}

static void refuses(const char *text, int error)
{
    uint64_t ms = 42;

    CHECK(rfc3339_parse(text, strlen(text), &ms) == error);
    CHECK(ms == 42);
}

static void examples_of_the_rfc(void)
{
    parses("1985-04-12T23:20:50.52Z", 482196050520);
    parses("1996-12-19T16:39:57-08:00", 851042397000);
    parses("1990-12-31T23:59:60Z", 662688000000); /* a leap second */
    parses("1990-12-31T15:59:60-08:00", 662688000000);
    refuses("1937-01-01T12:00:27.87+00:20", -ERANGE); /* before 1970 */
}

static void other_forms_are_read(void)
{
    parses("2026-11-21t09:30:00z", 1795253400000);
    parses("2026-11-21T18:30:00.1+09:00", 1795253400100);
    parses("2026-11-21T09:30:00.123999999Z", 1795253400123);
    parses("2026-11-21T09:30:00-00:00", 1795253400000);
    parses("1970-01-01T00:59:59.999+00:59", 59999);
    parses("9999-12-31T23:59:59.999Z", RFC3339_MAX_MS);
}

static void what_is_no_time_is_refused(void)
{
    refuses("", -EINVAL);
    refuses("2026-11-21", -EINVAL);
    refuses("2026-11-21T09:30:00", -EINVAL);
    refuses("2026-11-21 09:30:00Z", -EINVAL);
    refuses("2026-11-21T09:30:00.Z", -EINVAL);
    refuses("2026-11-21T09:30:00.1234567890Z", -EINVAL);
    refuses("2026-11-21T09:30:00Zx", -EINVAL);
    refuses("2026-11-21T09:30:00+9:00", -EINVAL);
    refuses("2026-11-21T09:30:00+24:00", -EINVAL);
    refuses("2026-11-21T09:30:00+09:60", -EINVAL);
    refuses("2026-02-29T00:00:00Z", -EINVAL);
    refuses("2100-02-29T00:00:00Z", -EINVAL);
    parses("2028-02-29T00:00:00Z", 1835395200000);
    refuses("2026-04-31T00:00:00Z", -EINVAL);
    refuses("2026-00-10T00:00:00Z", -EINVAL);
    refuses("2026-13-10T00:00:00Z", -EINVAL);
    refuses("2026-01-00T00:00:00Z", -EINVAL);
    refuses("2026-01-01T24:00:00Z", -EINVAL);
    refuses("2026-01-01T00:60:00Z", -EINVAL);
    refuses("2026-01-01T00:00:61Z", -EINVAL);
    refuses("+026-01-01T00:00:00Z", -EINVAL);
    refuses("0000-01-01T00:00:00Z", -ERANGE);
    refuses("1970-01-01T00:00:00+00:01", -ERANGE);
    refuses("9999-12-31T23:59:60Z", -ERANGE);
}

/* No byte behind the end is read: it is the end of an object, and AddressSanitizer watches. */
static void every_prefix_is_refused_without_reading_on(void)
{
    static const char whole[] = "2026-11-21T09:30:00.123+09:00";
    static char ending[sizeof(whole) - 1];

    for (size_t size = 0; size < sizeof(ending); size++) {
        char *text = ending + sizeof(ending) - size;
        uint64_t ms = 42;
        memcpy(text, whole, size);
        CHECK(rfc3339_parse(text, size, &ms) == -EINVAL);
        CHECK(ms == 42);
    }
}

int main(void)
{
    known_moments();
    every_day_is_written_and_read_back();
    the_cache_never_shows_another_second();
    examples_of_the_rfc();
    other_forms_are_read();
    what_is_no_time_is_refused();
    every_prefix_is_refused_without_reading_on();
    puts("7 passed, 0 failed");
    return 0;
}
