/* options.c - see options.h. */
#include "bench/options.h"

#include "bench/checker.h"
#include "core/check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <string.h>

enum {
    CONNECTIONS_MAX = 1000000,
    TEXT_MAX = 16384,
    GROUP_MAX = 10000,
    GROUP_DEFAULT = 100,
    RUNS_DEFAULT = 3,
    MESSAGES_DEFAULT = 20000,
    READS_DEFAULT = 1000,
    LOAD_ROOMS_MAX = 900,
    LOAD_TEXT_MAX = 1024,
};

/* The sizes of the scenarios S1 to S5, so that figures can be laid beside those of other servers.
 * The journal's record is a message with what a shard adds to it. */
static const struct preset {
    const char *name;
    enum scenario_kind kind;
    uint32_t connections, rooms, senders, in_flight, size;
    double rate, duration_s, warmup_s;
    const char *text;
} presets[] = {
    {"broadcast", SCENARIO_OPEN, 1000, 1, 10, 0, 100, 0, 10, 0.5, "S1: one room, messages to all"},
    {"rooms", SCENARIO_OPEN, 5000, 50, 5000, 0, 100, 5000, 10, 0.5, "S2: rooms, a steady rate"},
    {"pairs", SCENARIO_CLOSED, 1000, 500, 1000, 1, 100, 0, 10, 0.5, "S3: pairs, a closed loop"},
    {"idle", SCENARIO_IDLE, 10000, 100, 0, 0, 100, 0, 2, 0, "S4: memory of idle connections"},
    {"connect", SCENARIO_CONNECT, 64, 1, 0, 0, 100, 0, 10, 0.5, "S5: upgrade with a token, close"},
    {"journal", SCENARIO_JOURNAL, 0, 0, 0, 0, 200, 0, 10, 0.5, "the journal alone, no server"},
    {"acks", SCENARIO_ACKS, 64, 1, 64, 100, 100, 0, 10, 0.5, "acks a second, no fan-out"},
    {"persist", SCENARIO_PERSIST, 40, 20, 40, 0, 100, 200, 5, 0.5,
     "Redis and MongoDB in four ways, on servers of its own"},
    {"persist-redis", SCENARIO_PERSIST_REDIS, 0, 50, 0, 0, 100, 0, 3, 0,
     "persistence alone into Redis, no damsod"},
    {"persist-mongodb", SCENARIO_PERSIST_MONGODB, 0, 50, 0, 0, 100, 0, 0, 0,
     "the same into MongoDB, beside libmongoc alone"},
    {"persist-history", SCENARIO_PERSIST_HISTORY, 0, 50, 0, 0, 100, 20000, 5, 0,
     "pages out of Redis and MongoDB under writes"},
    {"smoke", SCENARIO_OPEN, 40, 4, 40, 0, 100, 400, 2, 0.2, "a little of S2, to see it work"},
};

static void usage(FILE *to)
{
    (void)fputs("usage: damso-bench SCENARIO [options]\n\nscenarios:\n", to);
    for (size_t i = 0; i < sizeof(presets) / sizeof(presets[0]); i++) {
        (void)fprintf(to, "  %-15s %s\n", presets[i].name, presets[i].text);
    }
    (void)fputs(
        "\noptions (defaults are the scenario's):\n"
        "  --url URL          server (http://127.0.0.1:8080)\n"
        "  --key FILE         the server's token key (data/jwt.key)\n"
        "  --pid PID          the server's process, for its CPU time and memory\n"
        "  --duration S       seconds of load; idle: seconds to hold\n"
        "  --warmup S         seconds of load before the measured ones\n"
        "  --tail S           seconds to wait for the last deliveries (5)\n"
        "  --rate N           messages a second; broadcast: 0 searches the highest\n"
        "  --p99-ms MS        what the search accepts as p99 (100)\n"
        "  --connections N    --rooms N    --senders N\n"
        "  --in-flight N      unanswered messages of one sender (acks)\n"
        "  --size BYTES       of each text (100); journal: of each record (200)\n"
        "  --durability WORD  of the rooms: memory, journal or fsync (the server's default)\n"
        "  --group N          records of one commit (journal: 100)\n"
        "  --data DIR         a directory on a disk, for the journal's own in it (.)\n"
        "  --before COMMAND   run by sh when all is set up and warm, before the measured load\n"
        "  --redis-url URL    --mongodb-uri URI   stores of persist*; without both a pair is\n"
        "                     started (scripts/servers), and stopped at the end\n"
        "  --stores DIR       of that pair's --data, for its CPU times\n"
        "  --servers FILE     scripts/servers   --damsod FILE   the server\n"
        "  --runs N           of persist-mongodb (3)\n"
        "  --messages N       of one of its runs (20000)\n"
        "  --reads N          pages a second (persist-history: 1000)\n"
        "  --cpu N            run on this CPU only\n"
        "  --json             print the last line only\n"
        "\nThe last line is one JSON object. Exit status: 0 all well, 1 something was lost,\n"
        "duplicated or reordered, 2 wrong usage, 3 the server cannot be used.\n",
        to);
}

static int wrong(const char *name, const char *value, const char *expected)
{
    (void)fprintf(stderr, "damso-bench: %s %s: expected %s\n", name, value, expected);
    return -EINVAL;
}

static int number(const char *name, const char *text, double low, double high, double *ret)
{
    char *end = NULL;
    char expected[64];

    errno = 0;
    const double value = strtod(text, &end);
    if (errno != 0 || end == text || *end != '\0' || !(value >= low && value <= high)) {
        (void)snprintf(expected, sizeof(expected), "a number from %g to %g", low, high);
        return wrong(name, text, expected);
    }
    *ret = value;
    return 0;
}

static int count(const char *name, const char *text, uint32_t low, uint32_t high, uint32_t *ret)
{
    double value = 0;
    const int result = number(name, text, low, high, &value);

    if (result == 0) {
        *ret = (uint32_t)value;
    }
    return result;
}

/* http://HOST[:PORT][/]; HOST is resolved here, once. */
static int take_url(struct options *options)
{
    static const char expected[] = "http://HOST:PORT with an IPv4 host that can be resolved";
    const struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    char host[64];
    char port[8] = "80";
    int end = 0;
    const char *const rest = options->url + 7;

    if (strncmp(options->url, "http://", 7) != 0 || sscanf(rest, "%63[^:/]%n", host, &end) != 1) {
        return wrong("--url", options->url, expected);
    }
    const char *tail = rest + end;
    if (*tail == ':') {
        end = 0;
        if (sscanf(tail, ":%5[0-9]%n", port, &end) != 1) {
            return wrong("--url", options->url, expected);
        }
        tail += end;
    }
    if (strcmp(tail, "") != 0 && strcmp(tail, "/") != 0) {
        return wrong("--url", options->url, expected);
    }
    if (getaddrinfo(host, port, &hints, &found) != 0 || found == NULL) {
        return wrong("--url", options->url, expected);
    }
    memcpy(&options->server, found->ai_addr, sizeof(options->server));
    freeaddrinfo(found);
    (void)snprintf(options->host, sizeof(options->host), "%s:%s", host, port);
    return 0;
}

enum {
    OPTION_URL = 256,
    OPTION_KEY,
    OPTION_PID,
    OPTION_DURATION,
    OPTION_WARMUP,
    OPTION_TAIL,
    OPTION_RATE,
    OPTION_P99,
    OPTION_CONNECTIONS,
    OPTION_ROOMS,
    OPTION_SENDERS,
    OPTION_IN_FLIGHT,
    OPTION_SIZE,
    OPTION_DURABILITY,
    OPTION_GROUP,
    OPTION_DATA,
    OPTION_BEFORE,
    OPTION_REDIS_URL,
    OPTION_MONGODB_URI,
    OPTION_STORES,
    OPTION_SERVERS,
    OPTION_DAMSOD,
    OPTION_RUNS,
    OPTION_MESSAGES,
    OPTION_READS,
    OPTION_CPU,
    OPTION_JSON,
};

static const struct option names[] = {
    {"url", required_argument, NULL, OPTION_URL},
    {"key", required_argument, NULL, OPTION_KEY},
    {"pid", required_argument, NULL, OPTION_PID},
    {"duration", required_argument, NULL, OPTION_DURATION},
    {"warmup", required_argument, NULL, OPTION_WARMUP},
    {"tail", required_argument, NULL, OPTION_TAIL},
    {"rate", required_argument, NULL, OPTION_RATE},
    {"p99-ms", required_argument, NULL, OPTION_P99},
    {"connections", required_argument, NULL, OPTION_CONNECTIONS},
    {"rooms", required_argument, NULL, OPTION_ROOMS},
    {"senders", required_argument, NULL, OPTION_SENDERS},
    {"in-flight", required_argument, NULL, OPTION_IN_FLIGHT},
    {"size", required_argument, NULL, OPTION_SIZE},
    {"durability", required_argument, NULL, OPTION_DURABILITY},
    {"group", required_argument, NULL, OPTION_GROUP},
    {"data", required_argument, NULL, OPTION_DATA},
    {"before", required_argument, NULL, OPTION_BEFORE},
    {"redis-url", required_argument, NULL, OPTION_REDIS_URL},
    {"mongodb-uri", required_argument, NULL, OPTION_MONGODB_URI},
    {"stores", required_argument, NULL, OPTION_STORES},
    {"servers", required_argument, NULL, OPTION_SERVERS},
    {"damsod", required_argument, NULL, OPTION_DAMSOD},
    {"runs", required_argument, NULL, OPTION_RUNS},
    {"messages", required_argument, NULL, OPTION_MESSAGES},
    {"reads", required_argument, NULL, OPTION_READS},
    {"cpu", required_argument, NULL, OPTION_CPU},
    {"json", no_argument, NULL, OPTION_JSON},
    {NULL, 0, NULL, 0},
};

/* Those of the persistence scenarios. */
static int take_persist_option(int name, const char *value, struct options *options)
{
    switch (name) {
    case OPTION_REDIS_URL:
        options->redis_url = value;
        return 0;
    case OPTION_MONGODB_URI:
        options->mongodb_uri = value;
        return 0;
    case OPTION_STORES:
        options->stores = value;
        return 0;
    case OPTION_SERVERS:
        options->servers = value;
        return 0;
    case OPTION_DAMSOD:
        options->damsod = value;
        return 0;
    case OPTION_RUNS:
        return count("--runs", value, 1, 15, &options->runs);
    case OPTION_MESSAGES:
        return count("--messages", value, 1000, 10000000, &options->messages);
    case OPTION_READS:
        return count("--reads", value, 1, 100000, &options->reads);
    default: /* getopt has said what it did not know */
        return -EINVAL;
    }
}

static int take_durability(const char *value, struct options *options)
{
    if (strcmp(value, "memory") != 0 && strcmp(value, "journal") != 0 &&
        strcmp(value, "fsync") != 0) {
        return wrong("--durability", value, "memory, journal or fsync");
    }
    options->durability = value;
    return 0;
}

static int take_option(int name, const char *value, struct options *options)
{
    uint32_t whole = 0;
    int result = 0;

    switch (name) {
    case OPTION_URL:
        options->url = value;
        return 0;
    case OPTION_KEY:
        options->key = value;
        return 0;
    case OPTION_PID:
        result = count("--pid", value, 1, INT32_MAX, &whole);
        options->pid = (int)whole;
        return result;
    case OPTION_DURATION:
        return number("--duration", value, 0.1, 86400, &options->duration_s);
    case OPTION_WARMUP:
        return number("--warmup", value, 0, 3600, &options->warmup_s);
    case OPTION_TAIL:
        return number("--tail", value, 0.1, 600, &options->tail_s);
    case OPTION_RATE:
        return number("--rate", value, 0, 1e8, &options->rate);
    case OPTION_P99:
        return number("--p99-ms", value, 0.1, 60000, &options->p99_ms);
    case OPTION_CONNECTIONS:
        return count("--connections", value, 1, CONNECTIONS_MAX, &options->connections);
    case OPTION_ROOMS:
        return count("--rooms", value, 1, CONNECTIONS_MAX, &options->rooms);
    case OPTION_SENDERS:
        return count("--senders", value, 1, CONNECTIONS_MAX, &options->senders);
    case OPTION_IN_FLIGHT:
        return count("--in-flight", value, 1, 400, &options->in_flight);
    case OPTION_SIZE:
        return count("--size", value, CHECKER_TEXT_MIN, TEXT_MAX, &options->size);
    case OPTION_DURABILITY:
        return take_durability(value, options);
    case OPTION_GROUP:
        return count("--group", value, 1, GROUP_MAX, &options->group);
    case OPTION_DATA:
        options->data = value;
        return 0;
    case OPTION_CPU:
        result = count("--cpu", value, 0, 1023, &whole);
        options->cpu = (int)whole;
        return result;
    case OPTION_BEFORE:
        options->before = value;
        return 0;
    case OPTION_JSON:
        options->json = true;
        return 0;
    default:
        return take_persist_option(name, value, options);
    }
}

static const struct preset *preset_of(const char *name)
{
    for (size_t i = 0; i < sizeof(presets) / sizeof(presets[0]); i++) {
        if (strcmp(name, presets[i].name) == 0) {
            return &presets[i];
        }
    }
    return NULL;
}

/* Of persistence alone: as many rooms and as long texts as bench/persist_load.h has. */
static int check_alone(const struct options *options)
{
    if (options->rooms > LOAD_ROOMS_MAX) {
        return wrong("--rooms", "", "at most 900");
    }
    return options->size > LOAD_TEXT_MAX ? wrong("--size", "", "at most 1024") : 0;
}

/* Each room needs a member, a pair two, and a sender must be one of the connections. */
static int check_together(struct options *options)
{
    if (options->kind == SCENARIO_CLOSED && options->connections != 2 * options->rooms) {
        return wrong("--connections", "of pairs", "twice --rooms");
    }
    if ((options->redis_url == NULL) != (options->mongodb_uri == NULL)) {
        return wrong("--redis-url", "and --mongodb-uri", "both or neither");
    }
    if (options->kind >= SCENARIO_PERSIST_REDIS) {
        return check_alone(options);
    }
    if (options->rooms > options->connections) {
        return wrong("--rooms", "", "at most as many as --connections");
    }
    if (options->senders > options->connections) {
        return wrong("--senders", "", "at most as many as --connections");
    }
    if (options->rate == 0 && options->kind == SCENARIO_OPEN &&
        strcmp(options->scenario, "broadcast") != 0) {
        return wrong("--rate", "0", "a rate: only broadcast searches for one");
    }
    return 0;
}

/* What was not given follows from what was: pairs have two members, all of a room's may send. */
static void fill_in(struct options *options, const struct preset *preset)
{
    const bool fewer_rooms = options->rooms == 0 && options->connections != 0;

    if (options->kind == SCENARIO_CLOSED && options->connections == 0 && options->rooms != 0) {
        options->connections = 2 * options->rooms;
    }
    options->connections = options->connections != 0 ? options->connections : preset->connections;
    if (fewer_rooms && options->kind == SCENARIO_CLOSED) {
        options->rooms = options->connections / 2;
    }
    if (fewer_rooms && options->rooms == 0 && preset->rooms > options->connections) {
        options->rooms = options->connections;
    }
    options->rooms = options->rooms != 0 ? options->rooms : preset->rooms;
    if (options->senders == 0) {
        options->senders = preset->senders == preset->connections   ? options->connections
                           : preset->senders < options->connections ? preset->senders
                                                                    : options->connections;
    }
}

int options_parse(int argument_count, char **arguments, struct options *ret)
{
    int result = 0;

    if (argument_count < 2 || strcmp(arguments[1], "--help") == 0) {
        usage(argument_count < 2 ? stderr : stdout);
        return -EINVAL;
    }
    const struct preset *const preset = preset_of(arguments[1]);
    if (preset == NULL) {
        (void)fprintf(stderr, "damso-bench: no scenario '%s'; damso-bench --help lists them\n",
                      arguments[1]);
        return -EINVAL;
    }
    struct options options = {.scenario = preset->name,
                              .kind = preset->kind,
                              .url = "http://127.0.0.1:8080",
                              .key = "data/jwt.key",
                              .cpu = -1,
                              .data = ".",
                              .size = preset->size,
                              .group = GROUP_DEFAULT,
                              .runs = RUNS_DEFAULT,
                              .messages = MESSAGES_DEFAULT,
                              .reads = READS_DEFAULT,
                              .in_flight = preset->in_flight,
                              .rate = preset->rate,
                              .duration_s = preset->duration_s,
                              .warmup_s = preset->warmup_s,
                              .tail_s = 5,
                              .p99_ms = 100};
    optind = 2;
    for (int name = 0; result == 0 && name != -1;) {
        /* NOLINTNEXTLINE(concurrency-mt-unsafe): this program has one thread. */
        name = getopt_long(argument_count, arguments, "", names, NULL);
        result = name == -1 ? 0 : take_option(name, optarg, &options);
    }
    if (result == 0 && optind < argument_count) {
        result = wrong(arguments[optind], "", "no further argument");
    }
    fill_in(&options, preset);
    result = result == 0 ? check_together(&options) : result;
    result = result == 0 ? take_url(&options) : result;
    if (result == 0) {
        *ret = options;
    }
    return result;
}
