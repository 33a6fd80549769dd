/* rfc3339.c - see rfc3339.h. The calendar counts days in eras of 400 years that begin in March, so
 * that a leap day is the last of its year (Howard Hinnant, "chrono-compatible low-level date
 * algorithms"). */
#include "core/rfc3339.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

enum {
    RFC3339_DAY_SECONDS = 86400,
    RFC3339_ERA_DAYS = 146097,   /* 400 years */
    RFC3339_EPOCH_DAYS = 719468, /* from 0000-03-01 to 1970-01-01 */
};

/* Two decimal digits; value below 100. */
static void rfc3339_two(char *dst, uint32_t value)
{
    dst[0] = (char)('0' + value / 10);
    dst[1] = (char)('0' + value % 10);
}

static void rfc3339_date(char *dst, uint32_t days)
{
    const uint32_t shifted = days + RFC3339_EPOCH_DAYS;
    const uint32_t era = shifted / RFC3339_ERA_DAYS;
    const uint32_t day_of_era = shifted % RFC3339_ERA_DAYS;
    const uint32_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    const uint32_t day_of_year =
        day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    const uint32_t month_from_march = (5 * day_of_year + 2) / 153;
    const uint32_t day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    const uint32_t month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
    const uint32_t year = era * 400 + year_of_era + (month <= 2 ? 1 : 0);

    rfc3339_two(dst, year / 100);
    rfc3339_two(dst + 2, year % 100);
    dst[4] = '-';
    rfc3339_two(dst + 5, month);
    dst[7] = '-';
    rfc3339_two(dst + 8, day);
}

/* "2026-11-21T09:30:00." */
static void rfc3339_second(char *dst, uint64_t second)
{
    const uint32_t in_day = (uint32_t)(second % RFC3339_DAY_SECONDS);

    rfc3339_date(dst, (uint32_t)(second / RFC3339_DAY_SECONDS));
    dst[10] = 'T';
    rfc3339_two(dst + 11, in_day / 3600);
    dst[13] = ':';
    rfc3339_two(dst + 14, in_day / 60 % 60);
    dst[16] = ':';
    rfc3339_two(dst + 17, in_day % 60);
    dst[19] = '.';
}

void rfc3339_format(struct rfc3339_cache *cache, uint64_t ms, char *dst)
{
    const uint64_t shown = ms <= RFC3339_MAX_MS ? ms : RFC3339_MAX_MS;
    const uint64_t second = shown / 1000;
    const uint32_t milli = (uint32_t)(shown % 1000);

    if (cache->second != second + 1) {
        rfc3339_second(cache->text, second);
        cache->second = second + 1;
    }
    memcpy(dst, cache->text, sizeof(cache->text));
    dst[20] = (char)('0' + milli / 100);
    rfc3339_two(dst + 21, milli % 100);
    dst[23] = 'Z';
}

/* A reader that stays wrong once it was: the calls need no check each. */
struct rfc3339_reader {
    const char *at;
    const char *end;
    bool wrong;
};

/* count digits as a number. */
static uint32_t rfc3339_number(struct rfc3339_reader *reader, uint32_t count)
{
    uint32_t value = 0;

    for (uint32_t i = 0; i < count; i++) {
        if (reader->at == reader->end || *reader->at < '0' || *reader->at > '9') {
            reader->wrong = true;
            return 0;
        }
        value = value * 10 + (uint32_t)(*reader->at++ - '0');
    }
    return value;
}

/* One of two characters (a letter in both cases, or the same one twice): takes it. */
static bool rfc3339_take(struct rfc3339_reader *reader, char either, char other)
{
    if (reader->at == reader->end || (*reader->at != either && *reader->at != other)) {
        return false;
    }
    reader->at++;
    return true;
}

static void rfc3339_expect(struct rfc3339_reader *reader, char either, char other)
{
    if (!rfc3339_take(reader, either, other)) {
        reader->wrong = true;
    }
}

static uint32_t rfc3339_month_days(uint32_t year, uint32_t month)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return days[month - 1] + (month == 2 && leap ? 1U : 0U);
}

/* Days since 1970; negative before. */
static int64_t rfc3339_days(uint32_t year, uint32_t month, uint32_t day)
{
    const uint32_t march_year = month <= 2 ? year + 399 : year + 400; /* 400 years up: never < 0 */
    const uint32_t month_from_march = month <= 2 ? month + 9 : month - 3;
    const uint32_t year_of_era = march_year % 400;
    const uint32_t day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    const uint32_t day_of_era =
        year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;

    return (int64_t)(march_year / 400) * RFC3339_ERA_DAYS + day_of_era -
           (RFC3339_EPOCH_DAYS + RFC3339_ERA_DAYS);
}

/* ".123456789", 1 to 9 digits, as milliseconds; 0 if there is none. */
static uint32_t rfc3339_fraction(struct rfc3339_reader *reader)
{
    uint32_t milli = 0;
    uint32_t digits = 0;

    if (!rfc3339_take(reader, '.', '.')) {
        return 0;
    }
    for (; digits < 9 && reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9';
         digits++) {
        const uint32_t digit = (uint32_t)(*reader->at++ - '0');
        milli = digits < 3 ? milli * 10 + digit : milli;
    }
    reader->wrong |= digits == 0;
    for (; digits < 3; digits++) {
        milli *= 10;
    }
    return milli;
}

/* "Z" or "+09:00", in minutes that local time is ahead. */
static int32_t rfc3339_offset(struct rfc3339_reader *reader)
{
    if (rfc3339_take(reader, 'Z', 'z')) {
        return 0;
    }
    const bool behind = rfc3339_take(reader, '-', '-');
    if (!behind) {
        rfc3339_expect(reader, '+', '+');
    }
    const uint32_t hours = rfc3339_number(reader, 2);
    rfc3339_expect(reader, ':', ':');
    const uint32_t minutes = rfc3339_number(reader, 2);
    reader->wrong |= hours > 23 || minutes > 59;
    const int32_t offset = (int32_t)(hours * 60 + minutes);
    return behind ? -offset : offset;
}

int rfc3339_parse(const char *text, size_t size, uint64_t *ret_ms)
{
    struct rfc3339_reader reader = {.at = text, .end = text + size};

    const uint32_t year = rfc3339_number(&reader, 4);
    rfc3339_expect(&reader, '-', '-');
    const uint32_t month = rfc3339_number(&reader, 2);
    rfc3339_expect(&reader, '-', '-');
    const uint32_t day = rfc3339_number(&reader, 2);
    rfc3339_expect(&reader, 'T', 't');
    const uint32_t hour = rfc3339_number(&reader, 2);
    rfc3339_expect(&reader, ':', ':');
    const uint32_t minute = rfc3339_number(&reader, 2);
    rfc3339_expect(&reader, ':', ':');
    const uint32_t second = rfc3339_number(&reader, 2);
    const uint32_t milli = rfc3339_fraction(&reader);
    const int32_t offset = rfc3339_offset(&reader);

    if (reader.wrong || reader.at != reader.end || month < 1 || month > 12 || day < 1 ||
        day > rfc3339_month_days(year, month) || hour > 23 || minute > 59 || second > 60) {
        return -EINVAL;
    }
    const int64_t minutes = (int64_t)hour * 60 + minute - offset;
    const int64_t seconds =
        rfc3339_days(year, month, day) * RFC3339_DAY_SECONDS + minutes * 60 + second;
    const int64_t ms = seconds * 1000 + milli;
    if (ms < 0 || ms > (int64_t)RFC3339_MAX_MS) {
        return -ERANGE;
    }
    *ret_ms = (uint64_t)ms;
    return 0;
}
