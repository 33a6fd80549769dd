/*
 * persist_metrics.h - what GET /metrics of damsod said at one moment, and what changed between two.
 *
 * Threads:    one.
 * Units:      as damsod's; durations in seconds.
 */
#pragma once

#include "core/check.h"

#include <netinet/in.h>
#include <stdint.h>

enum { PERSIST_METRICS_BYTES = 64 << 10, PERSIST_METRICS_BOUNDS_MAX = 32 };

struct persist_metrics {
    char text[PERSIST_METRICS_BYTES]; /* closed by a 0 */
};

/* Asks the server. 0; -errno; -EPROTO: no metrics came. */
NODISCARD int persist_metrics_read(const struct sockaddr_in *server, const char *host,
                                   struct persist_metrics *ret);

/* The value of a line, labels included: "acks_total", without "damso_". NAN: it is not there. */
double persist_metrics_value(const struct persist_metrics *metrics, const char *name);

/* How much it rose. */
double persist_metrics_rise(const struct persist_metrics *before,
                            const struct persist_metrics *after, const char *name);

/* The upper bound of the bucket that the share of what was observed in between lies in: the true
 * value is at most this and above the next lower bound. INFINITY: above all bounds; NAN: nothing
 * was observed. */
double persist_metrics_quantile(const struct persist_metrics *before,
                                const struct persist_metrics *after, const char *name,
                                double share);
