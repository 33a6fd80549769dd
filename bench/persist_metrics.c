/* persist_metrics.c - see persist_metrics.h. */
#include "bench/persist_metrics.h"

#include "bench/rest.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct asking {
    const char *host;
    struct persist_metrics *metrics;
};

static int request(void *context, uint32_t call, char *dst, size_t capacity)
{
    const struct asking *const asking = context;

    (void)call;
    return snprintf(dst, capacity, "GET /metrics HTTP/1.1\r\nHost: %s\r\n\r\n", asking->host);
}

static int answer(void *context, uint32_t call, int status, struct slice body)
{
    const struct asking *const asking = context;

    (void)call;
    if (status != 200 || body.size >= sizeof(asking->metrics->text)) {
        return -EPROTO;
    }
    memcpy(asking->metrics->text, body.data, body.size);
    asking->metrics->text[body.size] = '\0';
    return 0;
}

int persist_metrics_read(const struct sockaddr_in *server, const char *host,
                         struct persist_metrics *ret)
{
    struct asking asking = {host, ret};
    const struct rest_calls calls = {1, &asking, request, answer};
    struct rest rest;

    rest_init(&rest, server);
    const int result = rest_run(&rest, &calls);
    rest_close(&rest);
    return result;
}

double persist_metrics_value(const struct persist_metrics *metrics, const char *name)
{
    char begin[128];
    const int size = snprintf(begin, sizeof(begin), "\ndamso_%s ", name);
    const char *at = strstr(metrics->text, begin);

    if (at == NULL && strncmp(metrics->text, begin + 1, (size_t)size - 1) == 0) {
        at = metrics->text - 1; /* the first line has none before it */
    }
    return at == NULL ? NAN : strtod(at + size, NULL);
}

double persist_metrics_rise(const struct persist_metrics *before,
                            const struct persist_metrics *after, const char *name)
{
    return persist_metrics_value(after, name) - persist_metrics_value(before, name);
}

/* The next line of a histogram's buckets: its bound and how many are at or below it. Returns what
 * follows, or NULL. */
static const char *next_bucket(const char *at, const char *begin, double *ret_bound,
                               double *ret_count)
{
    const char *const found = strstr(at, begin);
    char *end = NULL;

    if (found == NULL) {
        return NULL;
    }
    *ret_bound = strtod(found + strlen(begin), &end); /* "+Inf" too */
    if (strncmp(end, "\"} ", 3) != 0) {
        return NULL;
    }
    *ret_count = strtod(end + 3, &end);
    return end;
}

double persist_metrics_quantile(const struct persist_metrics *before,
                                const struct persist_metrics *after, const char *name, double share)
{
    char begin[128];
    double bounds[PERSIST_METRICS_BOUNDS_MAX];
    double counts[PERSIST_METRICS_BOUNDS_MAX];
    uint32_t count = 0;
    const char *then = before->text;
    const char *now = after->text;

    (void)snprintf(begin, sizeof(begin), "damso_%s_bucket{le=\"", name);
    while (now != NULL && then != NULL && count < PERSIST_METRICS_BOUNDS_MAX) {
        double earlier = 0;
        then = next_bucket(then, begin, &bounds[count], &earlier);
        now = next_bucket(now, begin, &bounds[count], &counts[count]);
        if (then != NULL && now != NULL) {
            counts[count++] -= earlier;
        }
    }
    if (count == 0 || counts[count - 1] <= 0) {
        return NAN;
    }
    const double rank = ceil(share * counts[count - 1]);
    for (uint32_t i = 0; i < count; i++) {
        if (counts[i] >= rank && counts[i] > 0) {
            return bounds[i];
        }
    }
    return INFINITY;
}
