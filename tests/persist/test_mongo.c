/*
 * test_mongo.c - what an error means to us, which URIs are taken, and that nothing we say shows a
 *                secret; then, with a server, commands, bulks and readings.
 *
 * Method: the first half needs no server: the codes are a table, and unreachable servers are closed
 *         and silent ports of loopback. The second half runs on DAMSO_TEST_MONGODB_URI; what only a
 *         failing server answers is asked of a scripted one in tests/blackbox.
 */
#include "persist/mongo_code.h"
#include "persist/mongo_secret.h"
#include "tests/persist/mongo_rig.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

/* libmongoc's numbers (mongoc-error.h), which only persist/mongo.c may include. */
enum {
    DOMAIN_CLIENT = 1,
    DOMAIN_STREAM = 2,
    DOMAIN_PROTOCOL = 3,
    DOMAIN_BSON = 8,
    DOMAIN_SCRAM = 14,
    DOMAIN_SELECTION = 15,
    DOMAIN_WRITE_CONCERN = 16,
    DOMAIN_SERVER = 17,
    CLIENT_NOT_READY = 7,
    CLIENT_AUTHENTICATE = 11,
    BAD_WIRE_VERSION = 15,
};

/* --- without a server --- */

static void server_codes_fall_into_their_classes(void)
{
    static const struct {
        int error;
        uint32_t codes[32];
    } classes[] = {
        {-EAGAIN, {64,  91,   189,   10107, 11600, 11602, 13435, 13436, 6,   7,  89,
                   262, 9001, 13388, 133,   134,   1,     50,    100,   112, 43, 10058}},
        {-EEXIST, {11000, 11001, 12582}},
        {-EACCES, {13, 18, 8000}},
        {-EBADMSG, {121}},
        {-EMSGSIZE, {10334, 17280, 17419, 17420}},
        {-ENOTSUP, {59, 115, 238, 303}},
        {-EINVAL, {2, 9, 14, 72, 48, 99999}},
    };

    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        for (size_t k = 0; k < 32 && classes[i].codes[k] != 0; k++) {
            CHECK(mongo_code_errno(classes[i].codes[k]) == classes[i].error);
            CHECK(mongo_errno(DOMAIN_SERVER, classes[i].codes[k], NULL) == classes[i].error);
        }
    }
}

static void errors_of_the_driver_fall_into_their_classes(void)
{
    CHECK(mongo_errno(DOMAIN_STREAM, 4, NULL) == -EAGAIN);
    CHECK(mongo_errno(0, 0, NULL) == -EAGAIN); /* failed without a reason */
    CHECK(mongo_errno(DOMAIN_SELECTION, 13053, NULL) == -EAGAIN);
    CHECK(mongo_errno(DOMAIN_PROTOCOL, 17, NULL) == -EAGAIN);
    CHECK(mongo_errno(DOMAIN_PROTOCOL, BAD_WIRE_VERSION, NULL) == -ENOTSUP);
    CHECK(mongo_errno(DOMAIN_CLIENT, CLIENT_AUTHENTICATE, NULL) == -EACCES);
    CHECK(mongo_errno(DOMAIN_CLIENT, CLIENT_NOT_READY, NULL) == -EAGAIN);
    CHECK(mongo_errno(DOMAIN_SCRAM, 1, NULL) == -EACCES);
    CHECK(mongo_errno(DOMAIN_WRITE_CONCERN, 64, NULL) == -EAGAIN);
    CHECK(mongo_errno(DOMAIN_WRITE_CONCERN, 79, NULL) == -EAGAIN);
    CHECK(mongo_errno(DOMAIN_BSON, 18, NULL) == -EINVAL);
}

static void label_of_a_retryable_write_outweighs_the_code(void)
{
    bson_t *reply =
        BCON_NEW("errorLabels", "[", BCON_UTF8("Other"), BCON_UTF8("RetryableWriteError"), "]");
    bson_t *other = BCON_NEW("errorLabels", "[", BCON_UTF8("Other"), "]");

    CHECK(mongo_errno(DOMAIN_SERVER, 2, reply) == -EAGAIN);
    CHECK(mongo_errno(DOMAIN_SERVER, 2, other) == -EINVAL);
    bson_destroy(reply);
    bson_destroy(other);
}

static void secrets_of_a_uri_are_known_when_shown(void)
{
    const char *uri = "mongodb://ann:s3cr%40t-w0rd@host:1/damso";

    CHECK(mongo_secret_shows("bad s3cr%40t-w0rd here", uri));
    CHECK(mongo_secret_shows("bad s3cr@t-w0rd here", uri)); /* decoded */
    CHECK(mongo_secret_shows("ends in w0rd", uri));         /* a part of it */
    CHECK(!mongo_secret_shows("user ann at host:1, database damso", uri));
    CHECK(mongo_secret_shows("bad x@y:z", "mongodb://ann:x%40y%3Az@host/damso")); /* only so */
    CHECK(mongo_secret_shows("port a/b", "mongodb://ann:a/b@host/damso"));        /* a short one */
    CHECK(mongo_secret_shows("what xx@@ you", "mongodb://ann:xx@@@h/damso"));
    CHECK(
        mongo_secret_shows("key passphrase", "mongodb://h/d?tlsCertificateKeyFilePassword=phrase"));
    CHECK(mongo_secret_shows("of tokentoken",
                             "mongodb://h/d?authMechanismProperties=AWS_SESSION_TOKEN:tokentoken"));
    CHECK(!mongo_secret_shows("anything", "mongodb://host/damso"));
}

static int try_open(const char *uri, struct mem_plan *plan, struct mongo **ret, char why[512])
{
    mem_init(plan, "test", MEM_MAP);
    const struct mongo_options options = {
        .uri = uri, .connect_ms = 300, .socket_ms = 1000, .clients = 2, .plan = plan};
    why[0] = '\0';
    return mongo_open(&options, ret, why, 512);
}

static void wrong_uris_are_refused_with_words(void)
{
    static const struct {
        const char *uri;
        const char *words;
    } wrong[] = {
        {"", "mongodb://HOST"},
        {"localhost:27017/damso", "mongodb://HOST"},
        {"redis://localhost", "mongodb://HOST"},
        {"mongodb://", "not well formed"},
        {"mongodb:///damso", "not well formed"},
        {"mongodb://localhost:port/damso", "not well formed"},
        {"mongodb://localhost:99999/damso", "not well formed"},
        {"mongodb://localhost", "mongodb://HOST:27017/damso"},
        {"mongodb://localhost/", "mongodb://HOST:27017/damso"},
        {"mongodb://localhost/?w=1", "mongodb://HOST:27017/damso"},
        {"mongodb://localhost/a.b", "not well formed"},
        {"mongodb+srv://a.b.c:1/damso", "not well formed"},
    };
    struct mem_plan plan;
    struct mongo *mongo = NULL;
    char why[512];

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK(try_open(wrong[i].uri, &plan, &mongo, why) == -EINVAL);
        CHECK(mongo == NULL);
        CHECK(strstr(why, wrong[i].words) != NULL);
        mem_end(&plan);
    }
}

static void wrong_uris_never_show_the_password(void)
{
    static const char *const wrong[] = {
        "mongodb://ann:hunter22/x@localhost/damso", "mongodb://ann:hunter22:x@localhost/damso",
        "mongodb://ann:hunter22@@localhost/damso",  "mongodb://ann:hunter22%zz@localhost/damso",
        "mongodb://ann:hunter22@localhost:x/damso", "mongodb://ann:hunter22@/damso",
        "mongodb://ann:hunter22@localhost",
    };
    struct mem_plan plan;
    struct mongo *mongo = NULL;
    char why[512];

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        const int error = try_open(wrong[i], &plan, &mongo, why);
        CHECK(strstr(why, "hunter22") == NULL);
        CHECK(error == -EINVAL);
        CHECK(why[0] != '\0');
        mem_end(&plan);
    }
}

static void hosts_and_database_are_those_of_the_uri(void)
{
    struct mem_plan plan;
    struct mongo *mongo = NULL;
    char why[512];

    CHECK(try_open("mongodb://ann:hunter22@localhost:1,127.0.0.1:2/damso?replicaSet=r", &plan,
                   &mongo, why) == 0);
    CHECK(strcmp(mongo_database(mongo), "damso") == 0);
    CHECK(strcmp(mongo_hosts(mongo), "localhost:1,127.0.0.1:2") == 0);
    mongo_close(mongo);
    mem_end(&plan);
    mongo_close(NULL);
}

/* Time that a ping takes which must fail with -EAGAIN. */
static uint64_t failing_ping_ms(const char *uri)
{
    struct mem_plan plan;
    struct mongo *mongo = NULL;
    struct mongo_error error = {0};
    char why[512];

    CHECK(try_open(uri, &plan, &mongo, why) == 0);
    struct mongo_client *client = mongo_take(mongo);
    const uint64_t before_ns = os_now_ns();
    CHECK(mongo_ping(client, &error) == -EAGAIN);
    const uint64_t took_ms = (os_now_ns() - before_ns) / 1000000;
    CHECK(error.error == -EAGAIN);
    CHECK(error.text[0] != '\0');
    CHECK(strstr(error.text, "hunter22") == NULL);
    mongo_give(mongo, client);
    mongo_close(mongo);
    mem_end(&plan);
    return took_ms;
}

/* A port of loopback: closed, or (silent) one that takes connections and never answers. */
static int make_port(bool silent, uint16_t *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    const int fd = socket(AF_INET, SOCK_STREAM, 0);

    CHECK(fd >= 0);
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK(!silent || listen(fd, 8) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
    *ret_port = ntohs(address.sin_port);
    return fd;
}

static void unreachable_server_is_told_in_time(void)
{
    for (int silent = 0; silent < 2; silent++) {
        uint16_t port;
        char uri[128];
        const int fd = make_port(silent != 0, &port);
        (void)snprintf(uri, sizeof(uri),
                       "mongodb://ann:hunter22@127.0.0.1:%u/damso"
                       "?serverSelectionTimeoutMS=60000&connectTimeoutMS=60000",
                       port);
        const uint64_t took_ms = failing_ping_ms(uri);
        CHECK(took_ms < 1500); /* connect_ms is 300; a machine under load may be late */
        CHECK(close(fd) == 0);
    }
}

/* --- with a server --- */

static struct mongo_rig rig;
static struct mongo_client *client;
static struct mongo_error error;

static void begin_test(void)
{
    mongo_rig_open(&rig, 3);
    CHECK(mem_seal(&rig.plan) == 0);
    client = mongo_take(rig.mongo);
}

static void end_test(void)
{
    mongo_give(rig.mongo, client);
    mongo_rig_close(&rig);
}

struct refusals {
    uint32_t count;
    uint32_t index;
    int error;
    int32_t code;
};

static void note_refused(void *context, uint32_t index, int reason, int32_t code, const char *text)
{
    struct refusals *refusals = context;
    CHECK(text[0] != '\0');
    *refusals = (struct refusals){refusals->count + 1, index, reason, code};
}

/* Inserts documents {_id, n} with ids from first on; returns what was refused. */
static struct refusals insert(const char *collection, int32_t first, uint32_t count)
{
    static bson_t documents[MONGO_BULK_MAX];
    static const bson_t *list[MONGO_BULK_MAX];
    struct refusals refusals = {0};

    for (uint32_t i = 0; i < count; i++) {
        bson_init(&documents[i]);
        CHECK(BSON_APPEND_INT32(&documents[i], "_id", first + (int32_t)i));
        CHECK(BSON_APPEND_INT32(&documents[i], "n", (int32_t)i % 3));
        list[i] = &documents[i];
    }
    const int result =
        mongo_insert(client, collection, list, count, note_refused, &refusals, &error);
    if (result < 0) {
        (void)fprintf(stderr, "%d %s\n", result, error.text);
    }
    CHECK(result == 0);
    for (uint32_t i = 0; i < count; i++) {
        bson_destroy(&documents[i]);
    }
    return refusals;
}

static void server_answers_a_ping(void)
{
    begin_test();
    CHECK(mongo_ping(client, &error) == 0);
    end_test();
}

static void bulk_goes_in_but_for_what_is_there(void)
{
    begin_test();
    CHECK(insert("things", 0, MONGO_BULK_MAX).count == 0);
    const struct refusals some = insert("things", MONGO_BULK_MAX - 1, 10);
    CHECK(some.count == 1);
    CHECK(some.index == 0);
    CHECK(some.error == -EEXIST);
    CHECK(some.code == 11000);
    CHECK(insert("things", 0, MONGO_BULK_MAX).count == MONGO_BULK_MAX);
    end_test();
}

static void documents_are_counted_by_the_server(void)
{
    bson_t all = BSON_INITIALIZER;
    bson_t *some = BCON_NEW("_id", "{", "$gte", BCON_INT32(3), "$lt", BCON_INT32(7), "}");

    begin_test();
    CHECK(mongo_count(client, "things", &all, &error) == 0); /* no collection yet */
    CHECK(insert("things", 0, 30).count == 0);
    CHECK(mongo_count(client, "things", &all, &error) == 30);
    CHECK(mongo_count(client, "things", some, &error) == 4);
    end_test();
    bson_destroy(some);
}

struct reading {
    int32_t ids[64];
    uint32_t count;
    uint32_t end_at; /* so many rows, then answer with result */
    int result;
};

static int note_row(void *context, const bson_t *document)
{
    struct reading *reading = context;
    bson_iter_t iter;

    CHECK(bson_iter_init_find(&iter, document, "_id"));
    CHECK(reading->count < 64);
    reading->ids[reading->count++] = bson_iter_int32(&iter);
    return reading->count == reading->end_at ? reading->result : 0;
}

static void found_documents_come_in_the_order_asked_for(void)
{
    bson_t *filter = BCON_NEW("n", BCON_INT32(1));
    bson_t *options = BCON_NEW("sort", "{", "_id", BCON_INT32(-1), "}", "limit", BCON_INT64(5));
    struct reading reading = {0};

    begin_test();
    CHECK(insert("things", 0, 30).count == 0);
    CHECK(mongo_find(client, "things", filter, options, note_row, &reading, &error) == 0);
    CHECK(reading.count == 5);
    CHECK(reading.ids[0] == 28);
    CHECK(reading.ids[4] == 16);
    end_test();
    bson_destroy(options);
    bson_destroy(filter);
}

static void callback_ends_a_reading(void)
{
    bson_t all = BSON_INITIALIZER;
    struct reading enough = {.end_at = 2, .result = 1};
    struct reading wrong = {.end_at = 2, .result = -EBADMSG};

    begin_test();
    CHECK(insert("things", 0, 30).count == 0);
    CHECK(mongo_find(client, "things", &all, NULL, note_row, &enough, &error) == 0);
    CHECK(enough.count == 2);
    CHECK(mongo_find(client, "things", &all, NULL, note_row, &wrong, &error) == -EBADMSG);
    CHECK(wrong.count == 2);
    end_test();
}

static void updates_go_in_but_for_what_collides(void)
{
    bson_t *filters[3] = {BCON_NEW("_id", BCON_INT32(1)), BCON_NEW("_id", BCON_INT32(77)),
                          BCON_NEW("_id", BCON_INT32(2), "n", "{", "$lt", BCON_INT32(0), "}")};
    bson_t *change = BCON_NEW("$set", "{", "n", BCON_INT32(100), "}");
    bson_t *changed = BCON_NEW("n", BCON_INT32(100));
    struct mongo_update updates[3];
    struct refusals refusals = {0};

    begin_test();
    CHECK(insert("things", 0, 5).count == 0);
    for (int i = 0; i < 3; i++) {
        updates[i] = (struct mongo_update){filters[i], change, true};
    }
    CHECK(mongo_update(client, "things", updates, 3, note_refused, &refusals, &error) == 0);
    CHECK(refusals.count == 1);
    CHECK(refusals.index == 2);
    CHECK(refusals.error == -EEXIST);
    CHECK(mongo_count(client, "things", changed, &error) == 2);
    updates[1].upsert = false;
    CHECK(mongo_update(client, "things", updates, 2, note_refused, &refusals, &error) == 0);
    CHECK(refusals.count == 1);
    end_test();
    bson_destroy(changed);
    bson_destroy(change);
    for (int i = 0; i < 3; i++) {
        bson_destroy(filters[i]);
    }
}

static void command_that_is_refused_tells_why(void)
{
    bson_t *unknown = BCON_NEW("noSuchCommand", BCON_INT32(1));

    begin_test();
    CHECK(mongo_command(client, unknown, false, NULL, NULL, &error) == -ENOTSUP);
    CHECK(error.error == -ENOTSUP);
    CHECK(error.code == 59);
    CHECK(error.text[0] != '\0');
    end_test();
    bson_destroy(unknown);
}

static void clients_come_back_to_the_pool(void)
{
    begin_test();
    struct mongo_client *second = mongo_take(rig.mongo);
    struct mongo_client *third = mongo_take(rig.mongo);
    CHECK(second != client && third != client && second != third);
    CHECK(mongo_ping(second, &error) == 0);
    mongo_give(rig.mongo, second);
    CHECK(mongo_take(rig.mongo) == second);
    CHECK(mongo_ping(second, &error) == 0);
    mongo_give(rig.mongo, second);
    mongo_give(rig.mongo, third);
    end_test();
}

int main(void)
{
    server_codes_fall_into_their_classes();
    errors_of_the_driver_fall_into_their_classes();
    label_of_a_retryable_write_outweighs_the_code();
    secrets_of_a_uri_are_known_when_shown();
    wrong_uris_are_refused_with_words();
    wrong_uris_never_show_the_password();
    hosts_and_database_are_those_of_the_uri();
    unreachable_server_is_told_in_time();
    if (mongo_rig_server() == NULL) {
        return mongo_rig_skip(8);
    }
    server_answers_a_ping();
    bulk_goes_in_but_for_what_is_there();
    documents_are_counted_by_the_server();
    found_documents_come_in_the_order_asked_for();
    callback_ends_a_reading();
    updates_go_in_but_for_what_collides();
    command_that_is_refused_tells_why();
    clients_come_back_to_the_pool();
    puts("16 passed, 0 failed");
    return 0;
}
