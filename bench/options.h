/*
 * options.h - the command line of damso-bench, with each scenario's own defaults filled in.
 *
 * Units: seconds, bytes, messages a second.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

enum scenario_kind {
    SCENARIO_OPEN,          /* messages at given times, whatever comes back */
    SCENARIO_CLOSED,        /* the next message of a room when the last one is through */
    SCENARIO_IDLE,          /* connections that do nothing */
    SCENARIO_CONNECT,       /* connections that come and go */
    SCENARIO_ACKS,          /* senders whose messages go to nobody */
    SCENARIO_JOURNAL,       /* the journal alone, in this process */
    SCENARIO_PERSIST,       /* servers of its own, on Redis and MongoDB, in four ways */
    SCENARIO_PERSIST_REDIS, /* persistence alone, in this process, from here on */
    SCENARIO_PERSIST_MONGODB,
    SCENARIO_PERSIST_HISTORY,
};

struct options {
    const char *scenario;
    enum scenario_kind kind;
    bool json; /* nothing on stdout but the last line */
    const char *url;
    const char *key;
    const char *durability; /* NULL: the room's default, which must be fsync */
    const char *data;       /* where the journal's directory is made */
    const char *before;     /* a command, run when all is set up and warm; NULL: none */
    const char *redis_url, *mongodb_uri; /* both, or NULL: a pair is started */
    const char *stores; /* directory of scripts/servers that these are of: for CPU times; or NULL */
    const char *servers; /* scripts/servers; NULL: it is looked for */
    const char *damsod;  /* NULL: beside this program */
    struct sockaddr_in server;
    char host[80]; /* as in the Host header */
    int pid;       /* of the server; 0: not given */
    int cpu;       /* -1: not pinned */
    uint32_t connections, rooms, size, senders, in_flight;
    uint32_t group;                 /* records of a commit */
    uint32_t runs, messages, reads; /* reads: a second */
    double duration_s, warmup_s, tail_s, p99_ms;
    double rate; /* 0: search for the highest */
};

/* 0; -EINVAL after saying on stderr what is wrong, also for --help, which prints the usage. */
int options_parse(int count, char **arguments, struct options *ret);
