/*
 * mongo.c - see mongo.h for the invariants G1 and G2 named below.
 *
 * libmongoc's bulk says little about what it did: when the driver had to split a bulk and a later
 * part failed on the network, the write errors of an earlier part hide that. So a bulk counts as
 * done only if what was inserted (or matched and upserted) and what was refused add up to what was
 * sent; else it is -EAGAIN and the whole is sent again (G1).
 *
 * mongoc_cleanup is not called: it cannot be undone, and the library does it by itself when the
 * process ends.
 */
#include "persist/mongo.h"

#include "core/log.h"
#include "persist/mongo_code.h"
#include "persist/mongo_secret.h"

#include <errno.h>
#include <inttypes.h>
#include <mongoc/mongoc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum {
    CLIENTS_MAX = 64,
    DATABASE_BYTES = 64, /* MongoDB: below 64 bytes */
    HOSTS_BYTES = 256,
    LOGGED_BYTES = 256,
    HEARTBEAT_MS_MIN = 2000, /* how often a monitor asks its server: finds a new primary */
    HEARTBEAT_MS_MAX = 10000,
};

struct mongo_client {
    struct mongo *mongo;
    mongoc_client_t *client; /* NULL until its first call */
    _Atomic bool taken;
};

struct mongo {
    pthread_mutex_t lock;       /* of pool, while it is made */
    mongoc_client_pool_t *pool; /* NULL: a mongodb+srv name was not found yet */
    mongoc_uri_t *uri;
    mongoc_write_concern_t *write_concern;
    uint32_t reply_ms; /* what the server may take: half of the socket's, so that it can say so */
    uint32_t clients_count;
    _Atomic bool reads_local; /* a server refused readConcern "majority": see mongo_find */
    char database[DATABASE_BYTES];
    char hosts[HOSTS_BYTES];
    struct mongo_client clients[];
};

/* --- the driver's log --- */

/* A warning of the driver's is told by the error of the call that met it; an error of its own is
 * not. */
static void log_line(mongoc_log_level_t level, const char *domain, const char *message,
                     void *unused)
{
    (void)unused;
    if (level <= MONGOC_LOG_LEVEL_CRITICAL) {
        log_warning("MongoDB driver: %s domain=%s", message, domain);
    } else {
        log_debug("MongoDB driver: %s domain=%s", message, domain);
    }
}

/* While a URI is read: kept, for a piece of the URI may be quoted in it (G2). */
static void log_keep(mongoc_log_level_t level, const char *domain, const char *message,
                     void *context)
{
    char *kept = context;

    (void)domain;
    if (kept[0] == '\0' && level <= MONGOC_LOG_LEVEL_WARNING) {
        (void)snprintf(kept, LOGGED_BYTES, "%s", message);
    }
}

/* --- opening --- */

__attribute__((format(printf, 3, 4))) static int refuse(char *ret_why, size_t why_size,
                                                        const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(ret_why, why_size, format, arguments);
    va_end(arguments);
    return -EINVAL;
}

/* The URI read: 0, or -EINVAL with ret_why. */
static int parse(const char *text, mongoc_uri_t **ret, char *ret_why, size_t why_size)
{
    bson_error_t error = {0};
    char logged[LOGGED_BYTES] = "";

    if (strncmp(text, "mongodb://", 10) != 0 && strncmp(text, "mongodb+srv://", 14) != 0) {
        return refuse(ret_why, why_size,
                      "does not begin with mongodb:// or mongodb+srv://; write it as "
                      "mongodb://HOST:27017/damso");
    }
    if (strlen(text) >= MONGO_URI_BYTES_MAX) {
        return refuse(ret_why, why_size, "is longer than %d bytes", MONGO_URI_BYTES_MAX - 1);
    }
    mongoc_log_set_handler(log_keep, logged);
    mongoc_uri_t *uri = mongoc_uri_new_with_error(text, &error);
    mongoc_log_set_handler(log_line, NULL);
    const char *said = error.message[0] != '\0' ? error.message : logged;
    if (uri == NULL && (said[0] == '\0' || mongo_secret_shows(said, text))) {
        return refuse(ret_why, why_size,
                      "is not well formed; write it as "
                      "mongodb://USER:PASSWORD@HOST:27017/damso, with each of : / ? # [ ] @ %% in "
                      "user and password as %%XX");
    }
    if (uri == NULL) {
        return refuse(ret_why, why_size, "is not well formed: %s", said);
    }
    if (logged[0] != '\0') {
        log_warning("the URI of MongoDB is taken, but: %s",
                    mongo_secret_shows(logged, text) ? "an option has a wrong value" : logged);
    }
    *ret = uri;
    return 0;
}

static void set_number(mongoc_uri_t *uri, const char *option, uint32_t value)
{
    /* Only refused for an option that is no number. */
    CHECK(mongoc_uri_set_option_as_int32(uri, option,
                                         value < INT32_MAX ? (int32_t)value : INT32_MAX));
}

/* What is ours to say, whatever the URI says. */
static void settle(const struct mongo *mongo, const struct mongo_options *options)
{
    mongoc_uri_t *uri = mongo->uri;
    mongoc_read_prefs_t *primary = mongoc_read_prefs_new(MONGOC_READ_PRIMARY);
    const int32_t beat =
        mongoc_uri_get_option_as_int32(uri, MONGOC_URI_HEARTBEATFREQUENCYMS, HEARTBEAT_MS_MIN);

    set_number(uri, MONGOC_URI_SERVERSELECTIONTIMEOUTMS, options->connect_ms);
    set_number(uri, MONGOC_URI_CONNECTTIMEOUTMS, options->connect_ms);
    set_number(uri, MONGOC_URI_SOCKETTIMEOUTMS, options->socket_ms);
    set_number(uri, MONGOC_URI_MAXPOOLSIZE, options->clients);
    set_number(uri, MONGOC_URI_HEARTBEATFREQUENCYMS,
               beat < HEARTBEAT_MS_MIN   ? HEARTBEAT_MS_MIN
               : beat > HEARTBEAT_MS_MAX ? HEARTBEAT_MS_MAX
                                         : (uint32_t)beat);
    mongoc_uri_set_write_concern(uri, mongo->write_concern);
    mongoc_uri_set_read_prefs_t(uri, primary);
    mongoc_read_prefs_destroy(primary);
    (void)mongoc_uri_set_appname(uri, "damso");
}

static void keep_hosts(struct mongo *mongo)
{
    const char *name = mongoc_uri_get_srv_hostname(mongo->uri);
    size_t used = 0;

    if (name != NULL) {
        (void)snprintf(mongo->hosts, sizeof(mongo->hosts), "%s", name);
        return;
    }
    for (const mongoc_host_list_t *host = mongoc_uri_get_hosts(mongo->uri); host != NULL;
         host = host->next) {
        const int size = snprintf(mongo->hosts + used, sizeof(mongo->hosts) - used, "%s%s",
                                  used > 0 ? "," : "", host->host_and_port);
        if (size < 0 || used + (size_t)size >= sizeof(mongo->hosts)) {
            return; /* cut: it is for messages only */
        }
        used += (size_t)size;
    }
}

/* Makes the pool, which for mongodb+srv asks the name server: 0 or -errno with error. */
static int make_pool(struct mongo *mongo, bson_error_t *error)
{
    mongo->pool = mongoc_client_pool_new_with_error(mongo->uri, error);
    if (mongo->pool == NULL) {
        return mongo_errno(error->domain, error->code, NULL);
    }
    /* 2: the server's codes are told from the driver's by their domain. */
    CHECK(mongoc_client_pool_set_error_api(mongo->pool, MONGOC_ERROR_API_VERSION_2));
    return 0;
}

static size_t memory(uint32_t clients)
{
    return sizeof(struct mongo) + clients * sizeof(struct mongo_client);
}

void mongo_plan(uint32_t clients, struct mem_plan *plan)
{
    (void)mem_alloc(plan, "MongoDB clients", memory(clients));
}

int mongo_open(const struct mongo_options *options, struct mongo **ret, char *ret_why,
               size_t why_size)
{
    mongoc_uri_t *uri = NULL;

    CHECK(why_size > 0);
    CHECK(options->clients >= 1 && options->clients <= CLIENTS_MAX);
    CHECK(options->connect_ms >= 1 && options->socket_ms >= 2);
    mongoc_init();
    int error = parse(options->uri, &uri, ret_why, why_size);
    if (error < 0) {
        return error;
    }
    const char *database = mongoc_uri_get_database(uri);
    if (database == NULL || strlen(database) >= DATABASE_BYTES) {
        mongoc_uri_destroy(uri);
        return refuse(ret_why, why_size,
                      "names no database that could be used; write one behind the hosts: "
                      "mongodb://HOST:27017/damso");
    }
    struct mongo *mongo = mem_alloc(options->plan, "MongoDB clients", memory(options->clients));
    if (mongo == NULL) {
        mongoc_uri_destroy(uri);
        (void)snprintf(ret_why, why_size, "no memory for the clients");
        return -ENOMEM;
    }
    bson_error_t said = {0};
    (void)snprintf(mongo->database, sizeof(mongo->database), "%s", database);
    mongo->reply_ms = options->socket_ms / 2;
    mongo->clients_count = options->clients;
    mongo->uri = uri;
    mongo->write_concern = mongoc_write_concern_new();
    mongoc_write_concern_set_wmajority(mongo->write_concern, (int32_t)mongo->reply_ms);
    mongoc_write_concern_set_journal(mongo->write_concern, true);
    settle(mongo, options);
    keep_hosts(mongo);
    CHECK(pthread_mutex_init(&mongo->lock, NULL) == 0);
    error = make_pool(mongo, &said);
    if (error < 0 && error != -EAGAIN) {
        mongo_close(mongo);
        return refuse(ret_why, why_size, "cannot be used: %s",
                      mongo_secret_shows(said.message, options->uri) ? "an option is wrong"
                                                                     : said.message);
    }
    *ret = mongo;
    return 0;
}

void mongo_close(struct mongo *mongo)
{
    if (mongo == NULL) {
        return;
    }
    for (uint32_t i = 0; i < mongo->clients_count; i++) {
        CHECK(!atomic_load(&mongo->clients[i].taken));
    }
    if (mongo->pool != NULL) {
        mongoc_client_pool_destroy(mongo->pool);
    }
    mongoc_write_concern_destroy(mongo->write_concern);
    mongoc_uri_destroy(mongo->uri);
    (void)pthread_mutex_destroy(&mongo->lock);
}

const char *mongo_database(const struct mongo *mongo)
{
    return mongo->database;
}

const char *mongo_hosts(const struct mongo *mongo)
{
    return mongo->hosts;
}

struct mongo_client *mongo_take(struct mongo *mongo)
{
    for (uint32_t i = 0; i < mongo->clients_count; i++) {
        struct mongo_client *client = &mongo->clients[i];
        if (!atomic_exchange(&client->taken, true)) {
            client->mongo = mongo;
            return client;
        }
    }
    CHECK(mongo == NULL); /* more threads at the same time than options.clients */
    return NULL;
}

void mongo_give(struct mongo *mongo, struct mongo_client *client)
{
    CHECK(client->mongo == mongo);
    if (client->client != NULL) {
        mongoc_client_pool_push(mongo->pool, client->client);
    }
    client->client = NULL;
    atomic_store(&client->taken, false);
}

/* --- what an error means --- */

int mongo_errno(uint32_t domain, uint32_t code, const bson_t *reply)
{
    if (mongo_code_says_retry(reply)) {
        return -EAGAIN;
    }
    switch (domain) {
    case 0: /* it gave no reason */
    case MONGOC_ERROR_STREAM:
        return -EAGAIN;
    case MONGOC_ERROR_SERVER_SELECTION:
    case MONGOC_ERROR_PROTOCOL:
        return code == MONGOC_ERROR_PROTOCOL_BAD_WIRE_VERSION ||
                       code == MONGOC_ERROR_SERVER_SELECTION_BAD_WIRE_VERSION
                   ? -ENOTSUP
                   : -EAGAIN;
    case MONGOC_ERROR_CLIENT:
        return code == MONGOC_ERROR_CLIENT_AUTHENTICATE ? -EACCES : -EAGAIN;
    case MONGOC_ERROR_SASL:
    case MONGOC_ERROR_SCRAM:
        return -EACCES;
    case MONGOC_ERROR_WRITE_CONCERN:
        return -EAGAIN; /* applied, but not safe: nothing that sending it again could harm */
    case MONGOC_ERROR_SERVER:
    case MONGOC_ERROR_QUERY:
        return mongo_code_errno(code);
    default:
        return -EINVAL; /* the driver refused what we asked */
    }
}

/* Fills in ret_error from what the driver said, and returns its error, which is never 0. */
static int tell(struct mongo_error *ret_error, const bson_error_t *error, const bson_t *reply)
{
    const bool ours = error->domain == MONGOC_ERROR_BSON;
    int result = mongo_errno(error->domain, error->code, reply);

    /* The driver says AUTHENTICATE also when the connection broke meanwhile. */
    if (result == -EACCES && error->domain == MONGOC_ERROR_CLIENT &&
        (strstr(error->message, "socket") != NULL || strstr(error->message, "imeout") != NULL)) {
        result = -EAGAIN;
    }
    if (ours && strstr(error->message, "too large") != NULL) {
        result = -EMSGSIZE;
    }
    /* The monitor lost the server between its selection and the command (mongoc-cmd.c). */
    if (result == -EINVAL && strstr(error->message, "invalidated server") != NULL) {
        result = -EAGAIN;
    }
    ret_error->error = result;
    ret_error->code = error->domain == MONGOC_ERROR_SERVER ||
                              error->domain == MONGOC_ERROR_WRITE_CONCERN ||
                              error->domain == MONGOC_ERROR_QUERY
                          ? (int32_t)error->code
                          : 0;
    const char *text = error->message[0] != '\0' ? error->message : "no reason was given";
    const size_t size = strnlen(text, sizeof(ret_error->text) - 1);
    memcpy(ret_error->text, text, size);
    ret_error->text[size] = '\0';
    return result;
}

__attribute__((format(printf, 3, 4))) static int tell_ours(struct mongo_error *ret_error, int error,
                                                           const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(ret_error->text, sizeof(ret_error->text), format, arguments);
    va_end(arguments);
    ret_error->error = error;
    ret_error->code = 0;
    return error;
}

/* --- commands --- */

/* Begins every call: gets the driver's client if there is none yet. 0 or -errno. */
static int ready(struct mongo_client *client, struct mongo_error *ret_error)
{
    struct mongo *mongo = client->mongo;
    bson_error_t error = {0};
    int result = 0;

    if (client->client != NULL) {
        return 0;
    }
    CHECK(pthread_mutex_lock(&mongo->lock) == 0);
    if (mongo->pool == NULL && make_pool(mongo, &error) < 0) {
        result = tell(ret_error, &error, NULL);
    }
    CHECK(pthread_mutex_unlock(&mongo->lock) == 0);
    if (result == 0) {
        client->client = mongoc_client_pool_pop(mongo->pool);
        CHECK(client->client != NULL); /* the pool is as large as the list */
    }
    return result;
}

/* Appends what a write or a read of ours is asked with. */
static void put_concern(const struct mongo *mongo, bson_t *options, bool write)
{
    bson_t concern;

    if (write) {
        CHECK(mongoc_write_concern_append(mongo->write_concern, options));
    } else if (!atomic_load(&mongo->reads_local)) {
        CHECK(BSON_APPEND_DOCUMENT_BEGIN(options, "readConcern", &concern));
        CHECK(BSON_APPEND_UTF8(&concern, "level", "majority"));
        CHECK(bson_append_document_end(options, &concern));
    }
}

/* Whether a read that failed may have failed for its readConcern, and is to be asked again without.
 * "local" is right enough where a server has no other: one damsod writes, we build on a write only
 * after the majority acknowledged it, and all reads go to the primary. */
static bool reads_local(struct mongo *mongo, int error)
{
    return (error == -EINVAL || error == -ENOTSUP) && !atomic_exchange(&mongo->reads_local, true);
}

/* After the second attempt: it was the readConcern, or something else. */
static void settle_reads(struct mongo *mongo, bool done)
{
    if (done) {
        log_notice("MongoDB does not know readConcern majority; read with local hosts=%s",
                   mongo->hosts);
    } else {
        atomic_store(&mongo->reads_local, false);
    }
}

/* What an "ok" reply to a write may still say: that it is not safe yet (-EAGAIN), or that an update
 * was refused. 0 or -errno. */
static int check_write(const bson_t *reply, struct mongo_error *ret_error)
{
    bson_error_t error = {0};
    bson_iter_t iter;
    bson_iter_t entry;

    if (bson_iter_init_find(&iter, reply, "writeConcernError") && BSON_ITER_HOLDS_DOCUMENT(&iter)) {
        error = mongo_code_said(&iter, MONGOC_ERROR_WRITE_CONCERN);
    } else if (bson_iter_init_find(&iter, reply, "writeErrors") && BSON_ITER_HOLDS_ARRAY(&iter) &&
               bson_iter_recurse(&iter, &entry) && bson_iter_next(&entry)) {
        error = mongo_code_said(&entry, MONGOC_ERROR_SERVER);
    }
    return error.domain != 0 ? tell(ret_error, &error, reply) : 0;
}

int mongo_command(struct mongo_client *client, const bson_t *command, bool write, mongo_row row,
                  void *context, struct mongo_error *ret_error)
{
    const struct mongo *mongo = client->mongo;
    bson_t options = BSON_INITIALIZER;
    bson_t reply;
    bson_error_t error = {0};
    int result = ready(client, ret_error);
    bool done;

    if (result < 0) {
        return result;
    }
    if (write) {
        put_concern(mongo, &options, true);
        done = mongoc_client_write_command_with_opts(client->client, mongo->database, command,
                                                     &options, &reply, &error);
    } else {
        done = mongoc_client_read_command_with_opts(client->client, mongo->database, command, NULL,
                                                    &options, &reply, &error);
    }
    if (!done) {
        result = tell(ret_error, &error, &reply);
    } else {
        result = write ? check_write(&reply, ret_error) : 0;
    }
    if (result == 0 && row != NULL) {
        result = row(context, &reply);
        result = result < 0 ? result : 0;
    }
    bson_destroy(&reply);
    bson_destroy(&options);
    return result;
}

int mongo_ping(struct mongo_client *client, struct mongo_error *ret_error)
{
    bson_t command = BSON_INITIALIZER;

    CHECK(BSON_APPEND_INT32(&command, "ping", 1));
    const int error = mongo_command(client, &command, false, NULL, NULL, ret_error);
    bson_destroy(&command);
    return error;
}

/* --- reading --- */

/* One reading, which may be asked for twice. */
struct query {
    const char *collection;
    const bson_t *filter;
    const bson_t *options; /* NULL: none */
    mongo_row row;
    void *context;
    uint64_t rows; /* that were shown */
};

/* The rows of one query: 0, 1: the callback ended it, or -errno. */
static int read_rows(mongoc_cursor_t *cursor, struct query *query, struct mongo_error *ret_error)
{
    const bson_t *document;
    const bson_t *reply = NULL;
    bson_error_t error = {0};
    int result = 0;

    while (result == 0 && mongoc_cursor_next(cursor, &document)) {
        query->rows++;
        result = query->row(query->context, document);
    }
    if (result == 0 && mongoc_cursor_error_document(cursor, &error, &reply)) {
        return tell(ret_error, &error, reply);
    }
    return result;
}

static int find_once(struct mongo_client *client, struct query *query,
                     struct mongo_error *ret_error)
{
    const struct mongo *mongo = client->mongo;
    mongoc_collection_t *from =
        mongoc_client_get_collection(client->client, mongo->database, query->collection);
    bson_t asked = BSON_INITIALIZER;

    if (query->options != NULL) {
        CHECK(bson_concat(&asked, query->options));
    }
    CHECK(BSON_APPEND_INT64(&asked, "maxTimeMS", mongo->reply_ms));
    put_concern(mongo, &asked, false);
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(from, query->filter, &asked, NULL);
    const int result = read_rows(cursor, query, ret_error);
    mongoc_cursor_destroy(cursor);
    bson_destroy(&asked);
    mongoc_collection_destroy(from);
    return result;
}

/* NOLINTNEXTLINE(readability-function-size): what a find has */
int mongo_find(struct mongo_client *client, const char *collection, const bson_t *filter,
               const bson_t *options, mongo_row row, void *context, struct mongo_error *ret_error)
{
    struct query query = {.collection = collection,
                          .filter = filter,
                          .options = options,
                          .row = row,
                          .context = context};
    int result = ready(client, ret_error);

    if (result < 0) {
        return result;
    }
    result = find_once(client, &query, ret_error);
    if (query.rows == 0 && result < 0 && reads_local(client->mongo, result)) {
        result = find_once(client, &query, ret_error);
        settle_reads(client->mongo, result >= 0);
    }
    return result < 0 ? result : 0;
}

static int take_count(void *context, const bson_t *reply)
{
    bson_iter_t iter;
    bson_iter_t found;

    *(int64_t *)context = 0; /* no group: nothing matches */
    if (bson_iter_init(&iter, reply) &&
        bson_iter_find_descendant(&iter, "cursor.firstBatch.0.n", &found)) {
        *(int64_t *)context = bson_iter_as_int64(&found);
    }
    return 0;
}

static int64_t count_once(struct mongo_client *client, const char *collection, const bson_t *filter,
                          struct mongo_error *ret_error)
{
    bson_t command = BSON_INITIALIZER;
    int64_t count = 0;

    BCON_APPEND(&command, "aggregate", BCON_UTF8(collection), "pipeline", "[", "{", "$match",
                BCON_DOCUMENT(filter), "}", "{", "$group", "{", "_id", BCON_NULL, "n", "{", "$sum",
                BCON_INT32(1), "}", "}", "}", "]", "cursor", "{", "}", "maxTimeMS",
                BCON_INT64(client->mongo->reply_ms));
    put_concern(client->mongo, &command, false);
    const int error = mongo_command(client, &command, false, take_count, &count, ret_error);
    bson_destroy(&command);
    return error < 0 ? error : count;
}

int64_t mongo_count(struct mongo_client *client, const char *collection, const bson_t *filter,
                    struct mongo_error *ret_error)
{
    int64_t count = count_once(client, collection, filter, ret_error);

    if (count < 0 && reads_local(client->mongo, (int)count)) {
        count = count_once(client, collection, filter, ret_error);
        settle_reads(client->mongo, count >= 0);
    }
    return count;
}

/* --- bulks --- */

struct bulk {
    mongoc_collection_t *collection;
    mongoc_bulk_operation_t *operation;
    mongo_refused refused; /* NULL: nobody asks */
    void *context;
    uint32_t count;
    bool summed; /* every operation inserts, matches or upserts: the reply's numbers must add up */
};

static struct bulk begin_bulk(struct mongo_client *client, const char *collection, uint32_t count)
{
    bson_t options = BSON_INITIALIZER;
    struct bulk bulk = {.count = count, .summed = true};

    CHECK(count >= 1 && count <= MONGO_BULK_MAX);
    CHECK(BSON_APPEND_BOOL(&options, "ordered", false));
    bulk.collection =
        mongoc_client_get_collection(client->client, client->mongo->database, collection);
    /* The write concern is the client's, from the URI that settle made. */
    bulk.operation = mongoc_collection_create_bulk_operation_with_opts(bulk.collection, &options);
    bson_destroy(&options);
    return bulk;
}

static int64_t reply_number(const bson_t *reply, const char *name)
{
    bson_iter_t iter;
    return bson_iter_init_find(&iter, reply, name) ? bson_iter_as_int64(&iter) : 0;
}

/* How many of the reply's writeErrors are there, or -1; each is told if told is wanted. Keeps the
 * first that says -EAGAIN or -EACCES in ret: they are of the server's state, not of a document. */
static int64_t each_refused(const struct bulk *bulk, const bson_t *reply, bool told,
                            bson_error_t *ret)
{
    bson_iter_t iter;
    bson_iter_t entry;
    bson_iter_t field;
    int64_t count = 0;

    if (!bson_iter_init_find(&iter, reply, "writeErrors") || !BSON_ITER_HOLDS_ARRAY(&iter) ||
        !bson_iter_recurse(&iter, &entry)) {
        return 0;
    }
    while (bson_iter_next(&entry)) {
        const bson_error_t error = mongo_code_said(&entry, MONGOC_ERROR_SERVER);
        const int meaning = mongo_code_errno(error.code);
        const bool placed = bson_iter_recurse(&entry, &field) && bson_iter_find(&field, "index");
        const int64_t index = placed ? bson_iter_as_int64(&field) : -1;
        if ((meaning == -EAGAIN || meaning == -EACCES) && ret->domain == 0) {
            *ret = error;
        }
        if (index < 0 || index >= bulk->count) {
            return -1; /* no server of ours: its numbers will not add up */
        }
        if (told && bulk->refused != NULL) {
            bulk->refused(bulk->context, (uint32_t)index, meaning, (int32_t)error.code,
                          error.message);
        }
        count++;
    }
    return count;
}

/* What the first of writeConcernErrors says: 0 or -EAGAIN. */
static int bulk_concern(const bson_t *reply, struct mongo_error *ret_error)
{
    bson_iter_t iter;
    bson_iter_t entry;

    if (!bson_iter_init_find(&iter, reply, "writeConcernErrors") || !BSON_ITER_HOLDS_ARRAY(&iter) ||
        !bson_iter_recurse(&iter, &entry) || !bson_iter_next(&entry)) {
        return 0;
    }
    const bson_error_t error = mongo_code_said(&entry, MONGOC_ERROR_WRITE_CONCERN);
    return tell(ret_error, &error, reply);
}

/* What a bulk's reply means, as mongo_insert returns it. done: the driver calls it a success. */
static int weigh(const struct bulk *bulk, bool done, const bson_t *reply, const bson_error_t *error,
                 struct mongo_error *ret_error)
{
    bson_error_t state = {0};
    const int64_t errors = each_refused(bulk, reply, false, &state);
    const int64_t applied = reply_number(reply, "nInserted") + reply_number(reply, "nMatched") +
                            reply_number(reply, "nUpserted");
    const bool whole = errors >= 0 && (!bulk->summed || applied + errors == bulk->count);
    const int unsafe = bulk_concern(reply, ret_error);

    if (unsafe < 0) {
        return unsafe;
    }
    if (!done && errors == 0) {
        return tell(ret_error, error, reply);
    }
    if (!whole) {
        return tell_ours(ret_error, -EAGAIN, "%" PRId64 " of %" PRIu32 " were answered: %s",
                         applied + errors, bulk->count,
                         error->message[0] != '\0' ? error->message : "no reason was given");
    }
    if (state.domain != 0) {
        return tell(ret_error, &state, NULL);
    }
    (void)each_refused(bulk, reply, true, &state);
    return 0;
}

static int run_bulk(const struct bulk *bulk, struct mongo_error *ret_error)
{
    bson_error_t error = {0};
    bson_t reply;

    const bool done = mongoc_bulk_operation_execute(bulk->operation, &reply, &error) != 0;
    const int result = weigh(bulk, done, &reply, &error, ret_error);
    bson_destroy(&reply);
    return result;
}

static void end_bulk(struct bulk *bulk)
{
    mongoc_bulk_operation_destroy(bulk->operation);
    mongoc_collection_destroy(bulk->collection);
}

/* The driver need not look through our documents: who made them knows that they are well formed. */
static bson_t unvalidated(void)
{
    bson_t options = BSON_INITIALIZER;
    CHECK(BSON_APPEND_BOOL(&options, "validate", false));
    return options;
}

/* NOLINTNEXTLINE(readability-function-size): what a bulk has */
int mongo_insert(struct mongo_client *client, const char *collection,
                 const bson_t *const *documents, uint32_t count, mongo_refused refused,
                 void *context, struct mongo_error *ret_error)
{
    bson_error_t error = {0};
    int result = ready(client, ret_error);

    if (result < 0) {
        return result;
    }
    struct bulk bulk = begin_bulk(client, collection, count);
    bulk.refused = refused;
    bulk.context = context;
    bson_t options = unvalidated();
    for (uint32_t i = 0; i < count && result == 0; i++) {
        if (!mongoc_bulk_operation_insert_with_opts(bulk.operation, documents[i], &options,
                                                    &error)) {
            result = tell(ret_error, &error, NULL);
        }
    }
    result = result < 0 ? result : run_bulk(&bulk, ret_error);
    bson_destroy(&options);
    end_bulk(&bulk);
    return result;
}

/* NOLINTNEXTLINE(readability-function-size): what a bulk has */
int mongo_update(struct mongo_client *client, const char *collection,
                 const struct mongo_update *updates, uint32_t count, mongo_refused refused,
                 void *context, struct mongo_error *ret_error)
{
    bson_error_t error = {0};
    int result = ready(client, ret_error);

    if (result < 0) {
        return result;
    }
    struct bulk bulk = begin_bulk(client, collection, count);
    bulk.refused = refused;
    bulk.context = context;
    bson_t once = unvalidated();
    bson_t upsert = unvalidated();
    CHECK(BSON_APPEND_BOOL(&upsert, "upsert", true));
    for (uint32_t i = 0; i < count && result == 0; i++) {
        bulk.summed = bulk.summed && updates[i].upsert;
        if (!mongoc_bulk_operation_update_one_with_opts(
                bulk.operation, updates[i].filter, updates[i].update,
                updates[i].upsert ? &upsert : &once, &error)) {
            result = tell(ret_error, &error, NULL);
        }
    }
    result = result < 0 ? result : run_bulk(&bulk, ret_error);
    bson_destroy(&upsert);
    bson_destroy(&once);
    end_bulk(&bulk);
    return result;
}
