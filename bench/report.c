/* report.c - see report.h. */
#include "bench/report.h"

#include "bench/procstat.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

void report_init(struct report *report, const char *scenario)
{
    *report = (struct report){
        .scenario = scenario,
        .seconds = NAN,
        .rate = NAN,
        .deliveries_per_s = NAN,
        .messages_per_s = NAN,
        .deliveries_per_server_cpu_s = NAN,
        .messages_per_server_cpu_s = NAN,
        .connects_per_server_cpu_s = NAN,
        .connects_per_s = NAN,
        .server_cpu_s = NAN,
        .loader_cpu_s = NAN,
        .p50_ms = NAN,
        .p99_ms = NAN,
        .p999_ms = NAN,
        .max_ms = NAN,
        .ack_p50_ms = NAN,
        .ack_p99_ms = NAN,
        .server_rss_bytes = NAN,
        .server_pss_bytes = NAN,
        .server_private_bytes = NAN,
        .bytes_per_connection = NAN,
        .private_bytes_per_connection = NAN,
        .bytes_per_delivery = NAN,
        .deliveries_per_receive = NAN,
        .problem = "",
    };
}

double report_quantile_ms(const struct histogram *latency, double share)
{
    return latency->total == 0 ? NAN : (double)histogram_quantile(latency, share) / 1e6;
}

void report_latency(struct report *report, const struct histogram *latency)
{
    report->p50_ms = report_quantile_ms(latency, 0.5);
    report->p99_ms = report_quantile_ms(latency, 0.99);
    report->p999_ms = report_quantile_ms(latency, 0.999);
    report->max_ms = latency->total == 0 ? NAN : (double)latency->maximum / 1e6;
}

void report_memory(struct report *report, pid_t pid)
{
    struct procstat_memory memory;

    if (procstat_memory(pid, &memory) == 0) {
        report->server_rss_bytes = (double)memory.rss_bytes;
        report->server_pss_bytes = (double)memory.pss_bytes;
        report->server_private_bytes = (double)memory.private_bytes;
    }
}

bool report_clean(const struct report *report)
{
    return report->lost == 0 && report->duplicated == 0 && report->reordered == 0 &&
           report->gaps == 0 && report->errors == 0;
}

static void put_number(const char *name, double value, int digits)
{
    if (isfinite(value)) {
        (void)printf(",\"%s\":%.*f", name, digits, value);
    } else {
        (void)printf(",\"%s\":null", name);
    }
}

static void put_count(const char *name, uint64_t value)
{
    (void)printf(",\"%s\":%" PRIu64, name, value);
}

/* Only what would end or bend a JSON string is replaced: problems quote the server's own words. */
static void put_text(const char *name, const char *text)
{
    (void)printf(",\"%s\":\"", name);
    for (; *text != '\0'; text++) {
        const unsigned char byte = (unsigned char)*text;
        (void)putchar(byte < 0x20 || byte == '"' || byte == '\\' || byte >= 0x7f ? '?' : byte);
    }
    (void)putchar('"');
}

static void json_counts(const struct report *r)
{
    put_count("sent", r->sent);
    put_count("expected", r->expected);
    put_count("delivered", r->delivered);
    put_count("lost", r->lost);
    put_count("duplicated", r->duplicated);
    put_count("reordered", r->reordered);
    put_count("gaps", r->gaps);
    put_count("errors", r->errors);
    put_count("connections", r->connections);
    put_count("rooms", r->rooms);
}

static void json_rates(const struct report *r)
{
    put_number("rate", r->rate, 0);
    put_number("deliveries_per_s", r->deliveries_per_s, 0);
    put_number("messages_per_s", r->messages_per_s, 0);
    put_number("deliveries_per_server_cpu_s", r->deliveries_per_server_cpu_s, 0);
    put_number("messages_per_server_cpu_s", r->messages_per_server_cpu_s, 0);
    put_number("connects_per_server_cpu_s", r->connects_per_server_cpu_s, 0);
    put_number("connects_per_s", r->connects_per_s, 0);
    put_number("server_cpu_s", r->server_cpu_s, 3);
    put_number("loader_cpu_s", r->loader_cpu_s, 3);
    put_number("bytes_per_delivery", r->bytes_per_delivery, 1);
    put_number("deliveries_per_receive", r->deliveries_per_receive, 2);
}

void report_json(const struct report *r)
{
    (void)printf("{\"scenario\":\"%s\"", r->scenario);
    put_number("seconds", r->seconds, 3);
    json_counts(r);
    json_rates(r);
    put_number("p50_ms", r->p50_ms, 3);
    put_number("p99_ms", r->p99_ms, 3);
    put_number("p999_ms", r->p999_ms, 3);
    put_number("max_ms", r->max_ms, 3);
    put_number("ack_p50_ms", r->ack_p50_ms, 3);
    put_number("ack_p99_ms", r->ack_p99_ms, 3);
    put_number("server_rss_bytes", r->server_rss_bytes, 0);
    put_number("server_pss_bytes", r->server_pss_bytes, 0);
    put_number("server_private_bytes", r->server_private_bytes, 0);
    put_number("bytes_per_connection", r->bytes_per_connection, 1);
    put_number("private_bytes_per_connection", r->private_bytes_per_connection, 1);
    put_text("problem", r->problem);
    (void)puts("}");
}

static void people_number(const char *name, double value, const char *unit)
{
    if (isfinite(value)) {
        (void)printf("  %-28s %14.*f %s\n", name, value < 100 ? 3 : 0, value, unit);
    }
}

void report_people(const struct report *r)
{
    (void)printf("%s: %" PRIu64 " connections, %" PRIu64 " rooms, %.2f s\n", r->scenario,
                 r->connections, r->rooms, r->seconds);
    (void)printf("  sent %" PRIu64 ", expected %" PRIu64 ", delivered %" PRIu64 ", lost %" PRIu64
                 ", duplicated %" PRIu64 ", reordered %" PRIu64 ", gaps %" PRIu64
                 ", errors %" PRIu64 "\n",
                 r->sent, r->expected, r->delivered, r->lost, r->duplicated, r->reordered, r->gaps,
                 r->errors);
    people_number("messages", r->messages_per_s, "/s");
    people_number("deliveries", r->deliveries_per_s, "/s");
    people_number("connects", r->connects_per_s, "/s");
    people_number("deliveries", r->deliveries_per_server_cpu_s, "/server CPU-s");
    people_number("messages", r->messages_per_server_cpu_s, "/server CPU-s");
    people_number("connects", r->connects_per_server_cpu_s, "/server CPU-s");
    people_number("server CPU", r->server_cpu_s, "s");
    people_number("loader CPU", r->loader_cpu_s, "s");
    people_number("loader busy", 100 * r->loader_cpu_s / r->seconds, "%");
    people_number("latency p50", r->p50_ms, "ms");
    people_number("latency p99", r->p99_ms, "ms");
    people_number("latency p99.9", r->p999_ms, "ms");
    people_number("latency max", r->max_ms, "ms");
    people_number("ack p50", r->ack_p50_ms, "ms");
    people_number("ack p99", r->ack_p99_ms, "ms");
    people_number("server memory (RSS)", r->server_rss_bytes / 1048576, "MiB");
    people_number("memory per connection", r->bytes_per_connection, "bytes");
    if (r->problem[0] != '\0') {
        (void)printf("  first problem: %s\n", r->problem);
    }
}
