/*
 * report.h - a run's figures: a JSON line for programs, a few lines for people.
 *
 * Units: as the names say. NAN is a figure that this run does not have; it prints as null.
 */
#pragma once

#include "core/histogram.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct report {
    const char *scenario;
    double seconds; /* from the first send to the last delivery */
    uint64_t sent, expected, delivered, lost, duplicated, reordered;
    uint64_t gaps;   /* gaps that the server announced; their events count as lost */
    uint64_t errors; /* wrong acks, refused sends, frames that make no sense, lost connections */
    double rate;     /* messages a second that were asked for; NAN: closed loop */
    double deliveries_per_s, messages_per_s;
    double deliveries_per_server_cpu_s, messages_per_server_cpu_s, connects_per_server_cpu_s;
    double connects_per_s;
    double server_cpu_s, loader_cpu_s;
    double p50_ms, p99_ms, p999_ms, max_ms; /* latency from the intended time of sending */
    double ack_p50_ms, ack_p99_ms;
    double server_rss_bytes, server_pss_bytes, server_private_bytes;
    double bytes_per_connection, private_bytes_per_connection;
    double bytes_per_delivery, deliveries_per_receive;
    uint64_t connections, rooms;
    const char *problem; /* the first one, for people; empty: none */
};

/* All figures absent, all counts 0. */
void report_init(struct report *report, const char *scenario);

/* A quantile of nanoseconds in milliseconds; NAN without a sample. */
double report_quantile_ms(const struct histogram *latency, double share);

/* Fills p50_ms to max_ms. */
void report_latency(struct report *report, const struct histogram *latency);

/* Fills the server's memory; leaves it absent if /proc/PID cannot be read. */
void report_memory(struct report *report, pid_t pid);

/* True if nothing was lost, duplicated, reordered or otherwise wrong. */
bool report_clean(const struct report *report);

/* One JSON object and a newline on stdout. */
void report_json(const struct report *report);

/* A summary on stdout. */
void report_people(const struct report *report);
