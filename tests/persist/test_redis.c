/*
 * test_redis.c - the connection: URLs, signing in, TLS, pipelines that both sides fill, and servers
 *                that stall, lie, or never end: an error in bounded time, and words without the
 *                password.
 *
 * Method: a real redis-server for what it can show (redis_rig.h). Where a server is needed that no
 *         redis-server is, a thread behind a Unix socket says what the test wants, whatever it is
 *         asked.
 */
#include "persist/redis_url.h"
#include "tests/persist/redis_rig.h"

#include <pthread.h>
#include <sys/un.h>

enum { STALL_MS = 300, SLACK_MS = 1500 };

static struct redis_rig rig;

/* --- URLs --- */

static bool parses(const char *text, const char *expected)
{
    static const char *const schemes[] = {"tcp", "tls", "unix"};
    struct redis_url url;
    char why[512] = "";
    char got[2048];

    if (redis_url_parse(text, &url, why, sizeof(why)) < 0) {
        (void)fprintf(stderr, "%s: %s\n", text, why);
        return false;
    }
    (void)snprintf(got, sizeof(got), "%s %s %u %u %s %s", schemes[url.scheme], url.host,
                   url.scheme == REDIS_SCHEME_UNIX ? 0 : url.port, url.db,
                   url.user[0] != 0 ? url.user : "-", url.signs_in ? url.password : "-");
    if (strcmp(got, expected) != 0) {
        (void)fprintf(stderr, "%s: \"%s\"\n", text, got);
    }
    return strcmp(got, expected) == 0;
}

static void urls_say_where_and_who(void)
{
    CHECK(parses("redis://localhost", "tcp localhost 6379 0 - -"));
    CHECK(parses("redis://127.0.0.1:7000/", "tcp 127.0.0.1 7000 0 - -"));
    CHECK(parses("redis://127.0.0.1/15", "tcp 127.0.0.1 6379 15 - -"));
    CHECK(parses("rediss://ann:pw@my-redis_1.example:6380/2",
                 "tls my-redis_1.example 6380 2 ann pw"));
    CHECK(parses("redis://:pw@h", "tcp h 6379 0 - pw"));
    CHECK(parses("redis://ann:@h", "tcp h 6379 0 ann "));
    CHECK(parses("redis://@h", "tcp h 6379 0 - -"));
    CHECK(parses("redis://:p%40s%2Fs%3aw%25%20@h", "tcp h 6379 0 - p@s/s:w% "));
    CHECK(parses("redis://:a@b@h", "tcp h 6379 0 - a@b")); /* the last @ is the separator */
    CHECK(parses("redis://:a:b@h", "tcp h 6379 0 - a:b"));
    CHECK(parses("redis://[::1]:7001/3", "tcp ::1 7001 3 - -"));
    CHECK(parses("rediss://ann:pw@[fe80::1%eth0]", "tls fe80::1%eth0 6379 0 ann pw"));
    CHECK(parses("unix:///run/redis/redis.sock", "unix /run/redis/redis.sock 0 0 - -"));
    CHECK(parses("unix://:pw@/run/a%20b?db=4", "unix /run/a b 0 4 - pw"));
}

#define FIFTY "12345678901234567890123456789012345678901234567890"

static void wrong_urls_are_refused_without_their_secrets(void)
{
    static const char *const wrong[] = {
        "",
        "s3cret",
        "http://:s3cret@h",
        "redis:/:s3cret@h",
        "redis://",
        "redis://:s3cret@",
        "redis://:s3cret@:6379",
        "redis://s3cret@h",     /* a user alone, or a password in the wrong place */
        "redis://:s3/cret@h",   /* not percent-encoded */
        "redis://u:s3cret/x@h", /* the port seems to be s3cret */
        "redis://:s3?cret@h s3",
        "redis://:s3%cret@h",
        "redis://:s3%2",
        "redis://:s3cret%00@h",
        "redis://:s3cret@h:s3cret",
        "redis://:s3cret@h:0",
        "redis://:s3cret@h:65536",
        "redis://:s3cret@h:123456789012",
        "redis://:s3cret@h/s3cret",
        "redis://:s3cret@h/1/2",
        "redis://:s3cret@h/-1",
        "redis://:s3cret@h?db=1",
        "redis://:s3cret@h#s3cret",
        "redis://:s3cret@[::1",
        "redis://:s3cret@[s3cret]",
        "redis://:s3cret@[::1]s3",
        "redis://:s3cret@[]",
        "redis://:s3cret @h",
        "redis://:s3cret\n@h",
        "unix://s3cret",
        "unix://",
        "unix://:s3cret@run/x",
        "unix:///run/x?s3cret",
        "unix:///run/x?db=s3cret",
        "unix:///" FIFTY "/" FIFTY "/longer", /* than a socket's address has place for */
    };

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct redis_url url = {.port = 7};
        char why[512] = "";
        if (redis_url_parse(wrong[i], &url, why, sizeof(why)) != -EINVAL) {
            (void)fprintf(stderr, "taken: %s\n", wrong[i]);
            CHECK(false);
        }
        CHECK(strstr(why, "s3") == NULL); /* U1 */
        CHECK(strstr(why, "Redis URL") != NULL);
        CHECK(url.port == 7);
    }
    char whole[REDIS_URL_BYTES_MAX + 16];
    memset(whole, 'h', sizeof(whole));
    memcpy(whole, "redis://", 8);
    whole[sizeof(whole) - 1] = 0;
    struct redis_url url;
    char why[512] = "";
    CHECK(redis_url_parse(whole, &url, why, sizeof(why)) == -EINVAL);
    whole[8 + 300] = 0; /* fits, but no host is so long */
    CHECK(redis_url_parse(whole, &url, why, sizeof(why)) == -EINVAL);
}

/* --- a real server --- */

static void commands_are_answered_in_order(void)
{
    static const char binary[] = "a\0b\r\n$5\r\n\xff";
    const struct slice value = {binary, sizeof(binary)};
    struct redis_client client;
    struct redis_reply reply;

    redis_client_open(&client, rig.url, "");
    CHECK(!redis_is_open(client.redis));
    CHECK(redis_add(client.redis, 1, &value) == -ENOTCONN);
    CHECK(redis_connect(client.redis) == 0);
    CHECK(redis_command(client.redis, 3, (struct slice[]){SLICE("SET"), SLICE("k"), value},
                        &reply) == 0);
    CHECK(redis_command(client.redis, 2, (struct slice[]){SLICE("GET"), SLICE("k")}, &reply) == 0);
    CHECK(reply.type == REDIS_STRING && slice_equal(reply.text, value));
    for (int i = 0; i < 10000; i++) {
        CHECK(redis_add(client.redis, 2, (struct slice[]){SLICE("INCR"), SLICE("n")}) == 0);
    }
    CHECK(redis_pending_bytes(client.redis) > 0);
    CHECK(redis_send(client.redis) == 0);
    CHECK(redis_pending_bytes(client.redis) == 0);
    for (int i = 1; i <= 10000; i++) {
        CHECK(redis_reply(client.redis, &reply) == 0);
        CHECK(reply.type == REDIS_INTEGER && reply.integer == i);
    }
    CHECK(redis_command(client.redis, 2, (struct slice[]){SLICE("INCR"), SLICE("k")}, &reply) == 0);
    CHECK(reply.type == REDIS_ERROR); /* and the connection goes on */
    CHECK(redis_client_say(&client, "GET none").type == REDIS_NIL);
    redis_client_close(&client);
}

static void arrays_come_with_all_their_elements(void)
{
    const struct slice words[] = {SLICE("EVAL"),
                                  SLICE("return {1, {'two', {3, false}}, {}, 'five'}"), SLICE("0")};
    struct redis_client client;
    struct redis_reply reply;

    redis_client_open(&client, rig.url, NULL);
    CHECK(redis_connect(client.redis) == 0);
    CHECK(redis_command(client.redis, 3, words, &reply) == 0);
    CHECK(reply.type == REDIS_ARRAY && reply.count == 4);
    CHECK(redis_element(&reply, 0).integer == 1);
    const struct redis_reply second = redis_element(&reply, 1);
    CHECK(second.count == 2 && slice_equal(redis_element(&second, 0).text, SLICE("two")));
    const struct redis_reply third = redis_element(&second, 1);
    CHECK(redis_element(&third, 0).integer == 3);
    CHECK(redis_element(&third, 1).type == REDIS_NIL);
    CHECK(redis_element(&reply, 2).type == REDIS_ARRAY && redis_element(&reply, 2).count == 0);
    CHECK(slice_equal(redis_element(&reply, 3).text, SLICE("five")));
    redis_client_close(&client);
}

static void large_commands_pass_a_smaller_buffer(void)
{
    enum { LARGE = 9 * 1024 * 1024 + 7 };
    static char large[LARGE];
    struct redis_client client;
    struct redis_reply reply;

    for (size_t i = 0; i < LARGE; i++) {
        large[i] = (char)(i * 31 + i / 251);
    }
    redis_client_open(&client, rig.url, "");
    CHECK(redis_connect(client.redis) == 0);
    for (int i = 0; i < 2; i++) { /* the second finds the arena trimmed */
        const struct slice words[] = {SLICE("ECHO"), {large, LARGE}};
        CHECK(redis_command(client.redis, 2, words, &reply) == 0);
        CHECK(slice_equal(reply.text, words[1]));
    }
    CHECK(redis_client_gets(&client, "PING", "PONG"));
    redis_client_close(&client);
}

static void more_than_all_buffers_hold_goes_through_in_one_pipeline(void)
{
    enum { SIZE = 100000, COUNT = 400 };
    static char text[SIZE];
    const struct slice words[] = {SLICE("ECHO"), {text, SIZE}};
    struct redis_client client;
    struct redis_reply reply;

    memset(text, 'e', SIZE);
    redis_client_open(&client, rig.url, "");
    CHECK(redis_connect(client.redis) == 0);
    for (int i = 0; i < COUNT; i++) {
        CHECK(redis_add(client.redis, 2, words) == 0);
    }
    for (int i = 0; i < COUNT; i++) {
        CHECK(redis_reply(client.redis, &reply) == 0);
        CHECK(slice_equal(reply.text, words[1]));
    }
    redis_client_close(&client);
}

static void kept_commands_can_be_given_again(void)
{
    const struct slice words[] = {SLICE("INCR"), SLICE("again")};
    struct redis_client client;
    struct redis_reply reply;
    uint64_t at[4];

    redis_client_open(&client, rig.url, "");
    CHECK(redis_connect(client.redis) == 0);
    redis_keep(client.redis);
    for (int i = 0; i < 3; i++) {
        at[i] = redis_position(client.redis);
        CHECK(redis_command(client.redis, 2, words, &reply) == 0);
    }
    at[3] = redis_position(client.redis);
    CHECK(redis_repeat(client.redis, at[1], at[2]) == 0);
    CHECK(redis_reply(client.redis, &reply) == 0);
    CHECK(reply.integer == 4);
    static char large[REDIS_OUTPUT_BYTES];
    CHECK(redis_command(client.redis, 2, (struct slice[]){SLICE("ECHO"), {large, sizeof(large)}},
                        &reply) == 0);
    CHECK(redis_repeat(client.redis, at[2], at[3]) == -ENOENT); /* it is gone, and not garbage */
    CHECK(redis_client_gets(&client, "INCR again", "5"));
    redis_client_close(&client);
}

/* Connects by the URL whose # stands for the port; the error. */
static int try_url(const char *text, uint32_t port, const char *ca_file, char why[512])
{
    struct redis_client client;
    char url[PATH_MAX + 64];

    const int before = (int)strcspn(text, "#");
    (void)snprintf(url, sizeof(url), "%.*s%u%s", before, text, port, text + before + 1);
    redis_client_open(&client, url, ca_file);
    const int error = redis_connect(client.redis);
    CHECK(redis_is_open(client.redis) == (error == 0));
    (void)snprintf(why, 512, "%s", redis_why(client.redis));
    CHECK(error == 0 || why[0] != 0);
    CHECK(strstr(why, "s3cret") == NULL && strstr(why, "wr0ng") == NULL); /* R2 */
    if (error == 0) {
        CHECK(redis_client_gets(&client, "SET t v", "OK"));
    }
    redis_client_close(&client);
    return error;
}

static void users_and_passwords_are_told_apart(void)
{
    struct redis_client admin;
    char why[512];

    redis_client_open(&admin, rig.url, "");
    CHECK(redis_connect(admin.redis) == 0);
    CHECK(try_url("redis://:wr0ng@127.0.0.1:#", rig.port, "", why) == -EACCES);
    (void)redis_client_say(&admin, "CONFIG SET requirepass s3cret:/@");
    (void)redis_client_say(&admin, "ACL SETUSER ann on >s3cret2 ~* +@all");
    (void)redis_client_say(&admin, "ACL SETUSER bob on >s3cret3 ~* -@all");
    CHECK(try_url("redis://127.0.0.1:#", rig.port, "", why) == -EACCES);
    CHECK(strstr(why, "NOAUTH") != NULL);
    CHECK(try_url("redis://:wr0ng@127.0.0.1:#", rig.port, "", why) == -EACCES);
    CHECK(strstr(why, "user or password") != NULL && strstr(why, "WRONGPASS") != NULL);
    CHECK(try_url("redis://ann:wr0ng@127.0.0.1:#", rig.port, "", why) == -EACCES);
    CHECK(try_url("redis://:s3cret%3A%2F%40@127.0.0.1:#", rig.port, "", why) == 0);
    CHECK(try_url("redis://default:s3cret%3a%2f%40@127.0.0.1:#/3", rig.port, "", why) == 0);
    CHECK(try_url("redis://ann:s3cret2@127.0.0.1:#", rig.port, "", why) == 0);
    CHECK(try_url("redis://bob:s3cret3@127.0.0.1:#", rig.port, "", why) == -EACCES);
    CHECK(strstr(why, "NOPERM") != NULL);
    CHECK(try_url("redis://ann:s3cret2@127.0.0.1:#/99", rig.port, "", why) == -EIO);
    CHECK(strstr(why, "out of range") != NULL);
    (void)redis_client_say(&admin, "ACL SETUSER default nopass");
    CHECK(redis_client_gets(&admin, "SELECT 3", "OK"));
    CHECK(redis_client_gets(&admin, "GET t", "v")); /* it went where the URL said */
    redis_client_close(&admin);
}

static void unix_socket_serves_like_a_port(void)
{
    struct redis_client client;
    char url[PATH_MAX + 32];

    (void)snprintf(url, sizeof(url), "unix://%s", rig.socket);
    redis_client_open(&client, url, "");
    CHECK(redis_connect(client.redis) == 0);
    CHECK(redis_client_gets(&client, "PING", "PONG"));
    redis_client_close(&client);
}

static void nobody_there_is_told_by_name(void)
{
    struct sockaddr_in address = rig_loopback(0);
    socklen_t size = sizeof(address);
    char why[512];

    CHECK(try_url("redis://127.0.0.1:#", rig_free_port(), "", why) == -ECONNREFUSED);
    CHECK(strstr(why, "127.0.0.1:") == why && strstr(why, "Connection refused") != NULL);
    CHECK(try_url("unix:///no/such/socket#", 1, "", why) == -ENOENT);
    CHECK(try_url("redis://no-such-host.invalid:#", 1, "", why) == -EHOSTUNREACH);

    /* A listener whose queue is full: the kernel drops our SYN, and nobody answers. */
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(listener, (const struct sockaddr *)&address, size) == 0 && listen(listener, 0) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    int fill[2];
    for (int i = 0; i < 2; i++) {
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)connect(fill[i], (const struct sockaddr *)&address, size);
    }
    const uint64_t begin = rig_now_ms();
    CHECK(try_url("redis://127.0.0.1:#", ntohs(address.sin_port), "", why) == -ETIMEDOUT);
    CHECK(rig_now_ms() - begin < RIG_CONNECT_MS + SLACK_MS);
    (void)close(fill[0]);
    (void)close(fill[1]);
    (void)close(listener);
}

static void open_patient(struct redis_client *client, const char *url, uint32_t ms)
{
    char why[512] = "";

    mem_init(&client->plan, "test", MEM_MAP);
    const struct redis_options options = {
        .url = url, .connect_ms = ms, .reply_ms = ms, .plan = &client->plan};
    CHECK(redis_open(&options, &client->redis, why, sizeof(why)) == 0);
    CHECK(mem_seal(&client->plan) == 0);
}

static void stopped_server_is_given_up_in_time(void)
{
    enum { SIZE = 1024 * 1024 };
    static char text[SIZE];
    struct redis_client client;
    struct redis_reply reply;
    int error = 0;

    open_patient(&client, rig.url, STALL_MS);
    CHECK(redis_connect(client.redis) == 0);
    CHECK(kill(rig.pid, SIGSTOP) == 0);
    uint64_t begin = rig_now_ms();
    CHECK(redis_command(client.redis, 1, (struct slice[]){SLICE("PING")}, &reply) == -ETIMEDOUT);
    CHECK(rig_now_ms() - begin >= STALL_MS - 2);
    CHECK(rig_now_ms() - begin < STALL_MS + SLACK_MS);
    CHECK(!redis_is_open(client.redis)); /* R1 */
    begin = rig_now_ms();
    CHECK(redis_connect(client.redis) == -ETIMEDOUT); /* the kernel takes it, nobody answers */
    CHECK(rig_now_ms() - begin < STALL_MS + SLACK_MS);
    CHECK(kill(rig.pid, SIGCONT) == 0);
    CHECK(redis_connect(client.redis) == 0);
    CHECK(kill(rig.pid, SIGSTOP) == 0);
    begin = rig_now_ms();
    for (int i = 0; i < 64 && error == 0; i++) { /* until the kernel takes no more */
        error = redis_add(client.redis, 2, (struct slice[]){SLICE("ECHO"), {text, SIZE}});
    }
    CHECK(error == -ETIMEDOUT);
    CHECK(rig_now_ms() - begin < STALL_MS + SLACK_MS);
    CHECK(kill(rig.pid, SIGCONT) == 0);
    CHECK(redis_connect(client.redis) == 0);
    redis_client_close(&client);
}

static void too_many_clients_means_later(void)
{
    struct redis_client admin;
    char why[512];

    redis_client_open(&admin, rig.url, "");
    CHECK(redis_connect(admin.redis) == 0);
    (void)redis_client_say(&admin, "CONFIG SET maxclients 1");
    CHECK(try_url("redis://127.0.0.1:#", rig.port, "", why) == -EAGAIN);
    CHECK(strstr(why, "max number of clients") != NULL);
    (void)redis_client_say(&admin, "CONFIG SET maxclients 1000");
    redis_client_close(&admin);
}

/* --- TLS --- */

static char ca_file[PATH_MAX + 32];
static char other_file[PATH_MAX + 32];

/* A self-signed authority ca.pem, a certificate of it for 127.0.0.1 and redis.test, and another
 * authority. */
static void make_certificates(void)
{
    char script[8192];
    char *words[] = {(char[]){"sh"}, (char[]){"-ec"}, script, NULL};

    (void)snprintf(
        script, sizeof(script),
        "cd '%s'; for name in ca other; do openssl req -x509 -newkey ec -pkeyopt "
        "ec_paramgen_curve:P-256 -nodes -keyout $name.key -out $name.pem -subj /CN=$name "
        "-days 2 -addext basicConstraints=critical,CA:TRUE; done; "
        "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "
        "server.key -out server.csr -subj /CN=ignored; "
        "echo subjectAltName=IP:127.0.0.1,DNS:redis.test > san; "
        "openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial "
        "-extfile san -days 2 -out server.pem",
        rig.directory);
    rig_run(rig.directory, words);
    (void)snprintf(ca_file, sizeof(ca_file), "%s/ca.pem", rig.directory);
    (void)snprintf(other_file, sizeof(other_file), "%s/other.pem", rig.directory);
}

static void tls_is_for_the_right_host_and_authority_only(void)
{
    char why[512];

    CHECK(try_url("rediss://127.0.0.1:#", rig.tls_port, ca_file, why) == 0);
    CHECK(try_url("rediss://127.0.0.1:#", rig.tls_port, other_file, why) == -EKEYREJECTED);
    CHECK(strstr(why, "certificate") != NULL);
    CHECK(try_url("rediss://127.0.0.1:#", rig.tls_port, "", why) == -EKEYREJECTED);
    CHECK(try_url("rediss://localhost:#", rig.tls_port, ca_file, why) == -EKEYREJECTED);
    CHECK(strstr(why, "mismatch") != NULL);
    CHECK(try_url("rediss://127.0.0.2:#", rig.tls_port, ca_file, why) == -EKEYREJECTED);
    CHECK(try_url("rediss://127.0.0.1:#", rig.port, ca_file, why) < 0); /* speaks no TLS */
    CHECK(strstr(why, "TLS") != NULL);
    CHECK(try_url("redis://127.0.0.1:#", rig.tls_port, "", why) < 0);
}

static void tls_carries_as_much_as_a_plain_connection(void)
{
    enum { SIZE = 100000, COUNT = 300 };
    static char text[SIZE];
    const struct slice words[] = {SLICE("ECHO"), {text, SIZE}};
    struct redis_client client;
    struct redis_reply reply;
    char url[64];

    memset(text, 't', SIZE);
    (void)snprintf(url, sizeof(url), "rediss://127.0.0.1:%u", rig.tls_port);
    redis_client_open(&client, url, ca_file);
    CHECK(redis_connect(client.redis) == 0);
    for (int i = 0; i < COUNT; i++) {
        CHECK(redis_add(client.redis, 2, words) == 0);
    }
    for (int i = 0; i < COUNT; i++) {
        CHECK(redis_reply(client.redis, &reply) == 0);
        CHECK(slice_equal(reply.text, words[1]));
    }
    redis_client_close(&client);
}

static void missing_authority_is_told_at_once(void)
{
    struct mem_plan plan;
    struct redis *redis = NULL;
    char why[512] = "";

    mem_init(&plan, "test", MEM_MAP);
    const struct redis_options options = {
        .url = "rediss://:s3cret@h", .ca_file = "/no/such.pem", .plan = &plan};
    CHECK(redis_open(&options, &redis, why, sizeof(why)) == -EINVAL);
    CHECK(strstr(why, "/no/such.pem") != NULL && strstr(why, "s3cret") == NULL);
    CHECK(redis == NULL);
    mem_end(&plan);
}

static void counting_plan_has_the_same_lines(void)
{
    struct mem_plan counted;
    struct redis_client client;
    struct redis *redis = (struct redis *)&counted;
    char why[64];

    mem_init(&counted, "count", MEM_COUNT);
    const struct redis_options options = {.url = "not looked at", .plan = &counted};
    CHECK(redis_open(&options, &redis, why, sizeof(why)) == 0);
    CHECK(redis == NULL);
    redis_close(redis);
    redis_client_open(&client, rig.url, "");
    CHECK(counted.total == client.plan.total && counted.line_count == client.plan.line_count);
    redis_client_close(&client);
}

/* --- a server that is none --- */

struct liar {
    int listener;
    pthread_t thread;
    char path[PATH_MAX + 16];
    char url[PATH_MAX + 32];
    const char *greeting; /* to sign-in, whatever it is */
    struct slice answer;  /* then */
    uint64_t repeat;      /* the answer so often */
    uint32_t pause_ms;    /* between two */
    uint32_t patience_ms; /* of ours; 0: STALL_MS */
    bool stays;           /* does not close then, until the client does */
    bool deaf;            /* says all of it before it reads on */
};

static void *lie(void *context)
{
    const struct liar *liar = context;
    char bytes[4096];
    const int fd = accept(liar->listener, NULL, NULL);

    CHECK(fd >= 0);
    CHECK(recv(fd, bytes, sizeof(bytes), 0) > 0);
    CHECK(send(fd, liar->greeting, strlen(liar->greeting), MSG_NOSIGNAL) >= 0);
    if (liar->deaf || recv(fd, bytes, sizeof(bytes), 0) > 0) {
        for (uint64_t i = 0; i < liar->repeat; i++) {
            if (send(fd, liar->answer.data, liar->answer.size, MSG_NOSIGNAL) < 0) {
                break; /* we were given up, which is the point */
            }
            CHECK(usleep(liar->pause_ms * 1000) == 0);
        }
        while (liar->stays && recv(fd, bytes, sizeof(bytes), 0) > 0) {
        }
    }
    CHECK(close(fd) == 0);
    return NULL;
}

static void start_liar(struct liar *liar, struct redis_client *client)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    (void)snprintf(liar->path, sizeof(liar->path), "%s/liar", rig.directory);
    (void)snprintf(liar->url, sizeof(liar->url), "unix://:s3cret@%s", liar->path);
    CHECK(strlen(liar->path) < sizeof(address.sun_path));
    memcpy(address.sun_path, liar->path, strlen(liar->path));
    liar->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(liar->listener, (const struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK(listen(liar->listener, 1) == 0);
    CHECK(pthread_create(&liar->thread, NULL, lie, liar) == 0);
    open_patient(client, liar->url, liar->patience_ms > 0 ? liar->patience_ms : STALL_MS);
}

static void end_liar(struct liar *liar, struct redis_client *client)
{
    redis_client_close(client);
    CHECK(pthread_join(liar->thread, NULL) == 0);
    CHECK(close(liar->listener) == 0);
    CHECK(unlink(liar->path) == 0);
}

/* The error of a PING to such a server, after a good sign-in; or of the sign-in. */
static int ping_liar(struct liar liar, char why[512])
{
    struct redis_client client;
    struct redis_reply reply;

    start_liar(&liar, &client);
    int error = redis_connect(client.redis);
    if (error == 0) {
        error = redis_command(client.redis, 1, (struct slice[]){SLICE("PING")}, &reply);
    }
    CHECK(redis_is_open(client.redis) == (error == 0));
    (void)snprintf(why, 512, "%s", redis_why(client.redis));
    CHECK(strstr(why, "s3cret") == NULL); /* R2 */
    end_liar(&liar, &client);
    return error;
}

#define GOOD "+OK\r\n+PONG\r\n"

static int answer_of(struct slice answer, uint64_t repeat, bool stays)
{
    char why[512];

    return ping_liar(
        (struct liar){.greeting = GOOD, .answer = answer, .repeat = repeat, .stays = stays}, why);
}

static void garbage_and_cut_replies_close_the_connection(void)
{
    CHECK(answer_of(SLICE("+fine\r\n"), 1, true) == 0);
    CHECK(answer_of(SLICE("HTTP/1.1 400 Bad Request\r\n\r\n"), 1, true) == -EPROTO);
    CHECK(answer_of(SLICE("\0\0\0\0"), 1, true) == -EPROTO);
    CHECK(answer_of(SLICE("*99999999999\r\n"), 1, true) < 0);
    CHECK(answer_of(SLICE("*1000000000\r\n"), 1, true) == -EMSGSIZE);
    CHECK(answer_of(SLICE("*65537\r\n"), 1, true) == -EMSGSIZE);
    CHECK(answer_of(SLICE("$99999999999999999999\r\n"), 1, true) < 0);
    CHECK(answer_of(SLICE(""), 0, false) == -ECONNRESET);
    CHECK(answer_of(SLICE("$10\r\nabc"), 1, false) == -ECONNRESET);
    CHECK(answer_of(SLICE("$10\r\nabc"), 1, true) == -ETIMEDOUT);
    CHECK(answer_of(SLICE("*2\r\n+a\r\n"), 1, true) == -ETIMEDOUT);
}

/* The same of what comes so often, with the time that it needs in a slow build. */
static int answer_of_many(struct slice part, uint64_t repeat)
{
    const struct liar liar = {.greeting = GOOD,
                              .answer = part,
                              .repeat = repeat,
                              .patience_ms = RIG_REPLY_MS,
                              .stays = true};
    char why[512];

    return ping_liar(liar, why);
}

/* redis-server reads on whatever it has to send; a proxy between us may not. */
static void two_sides_that_only_send_do_not_block_each_other(void)
{
    enum { SIZE = 100000, COUNT = 200 };
    static char bulk[SIZE + 11] = "$100000\r\n";
    struct liar liar = {.greeting = GOOD,
                        .answer = {bulk, SIZE + 11},
                        .repeat = COUNT,
                        .patience_ms = RIG_REPLY_MS,
                        .stays = true,
                        .deaf = true};
    const struct slice words[] = {SLICE("ECHO"), {bulk, SIZE}};
    struct redis_client client;
    struct redis_reply reply;

    bulk[SIZE + 9] = '\r';
    bulk[SIZE + 10] = '\n';
    start_liar(&liar, &client);
    CHECK(redis_connect(client.redis) == 0);
    for (int i = 0; i < COUNT; i++) { /* 20 MB, and the same back */
        CHECK(redis_add(client.redis, 2, words) == 0);
    }
    for (int i = 0; i < COUNT; i++) {
        CHECK(redis_reply(client.redis, &reply) == 0);
        CHECK(reply.text.size == SIZE);
    }
    end_liar(&liar, &client);
}

static void replies_without_end_are_cut_off(void)
{
    static char part[65536];
    const struct slice whole = {part, sizeof(part)};

    memset(part, 'x', sizeof(part));
    (void)snprintf(part, sizeof(part), "$4294967296\r\n");
    CHECK(answer_of_many(whole, 2000) == -EMSGSIZE); /* R3 */
    memset(part, '+', sizeof(part));
    const uint64_t begin = rig_now_ms();
    CHECK(answer_of_many(whole, 2000) == -EMSGSIZE);
    CHECK(rig_now_ms() - begin < 3000); /* not by looking through all of it again and again */
    CHECK(answer_of_many(SLICE("*1\r\n"), 100000) == -EPROTO); /* nests without end */
    memset(part, 0, sizeof(part));
    for (size_t i = 0; i + 8 < sizeof(part); i += 8) {
        CHECK(snprintf(part + i, 9, "*65536\r\n") == 8); /* each alone takes 3 MiB */
    }
    CHECK(answer_of_many(whole, 1) < 0);
}

static void reply_that_trickles_is_given_up(void)
{
    struct liar liar = {.greeting = GOOD, .answer = SLICE("+"), .repeat = 100000, .pause_ms = 50};
    char why[512];
    const uint64_t begin = rig_now_ms();

    CHECK(ping_liar(liar, why) == -ETIMEDOUT); /* never silent, never done */
    CHECK(rig_now_ms() - begin < REDIS_PATIENCE * STALL_MS + SLACK_MS);
    CHECK(rig_now_ms() - begin >= REDIS_PATIENCE * STALL_MS - 2);
}

static void what_it_says_is_told_without_password_and_control_characters(void)
{
    char why[512];
    struct liar liar = {.greeting = "-ERR unknown command 'AUTH', with args: 's3cret'\r\n+P\r\n"};

    CHECK(ping_liar(liar, why) == -EACCES); /* the command was renamed; R2 is checked there */
    CHECK(strstr(why, "password") != NULL);
    liar.greeting = "+OK\r\n-LOADING \033[31mRedis\001 is loading\r\n";
    CHECK(ping_liar(liar, why) == -EAGAIN);
    CHECK(strstr(why, "LOADING  [31mRedis  is loading") != NULL);
    liar.greeting = "+OK\r\n:1\r\n";
    CHECK(ping_liar(liar, why) == -EPROTO);
    liar.greeting = "";
    CHECK(ping_liar(liar, why) == -ETIMEDOUT);
}

static void errors_mean_what_redis_means(void)
{
    static const struct {
        struct slice text;
        int error;
    } cases[] = {
        {SLICE("OOM command not allowed when used memory > 'maxmemory'."), -ENOSPC},
        {SLICE("ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed "
               "when used memory > 'maxmemory'."),
         -ENOSPC},
        {SLICE("BUSY Redis is busy running a script."), -EAGAIN},
        {SLICE("BUSYGROUP Consumer Group name already exists"), -EIO},
        {SLICE("MASTERDOWN Link with MASTER is down"), -EAGAIN},
        {SLICE("READONLY You can't write against a read only replica."), -EROFS},
        {SLICE("MISCONF Redis is configured to save RDB snapshots"), -EROFS},
        {SLICE("MOVED 3999 127.0.0.1:6381"), -ENOTSUP},
        {SLICE("NOSCRIPT No matching script."), -ENOEXEC},
        {SLICE("WRONGTYPE Operation against a key"), -EMEDIUMTYPE},
        {SLICE("NOPERM this user has no permissions"), -EACCES},
        {SLICE("ERR something"), -EIO},
        {SLICE(""), -EIO},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        CHECK(redis_error(cases[i].text) == cases[i].error);
    }
}

int main(void)
{
    char options[PATH_MAX * 4];
    char directory[RIG_PATH_BYTES];

    urls_say_where_and_who();
    wrong_urls_are_refused_without_their_secrets();
    errors_mean_what_redis_means();
    rig_make(directory);
    CHECK(realpath(directory, rig.directory) != NULL);
    make_certificates();
    rig.tls_port = rig_free_port();
    (void)snprintf(options, sizeof(options),
                   "--tls-port %u --tls-cert-file %s/server.pem --tls-key-file %s/server.key "
                   "--tls-ca-cert-file %s --tls-auth-clients no --bind 127.0.0.1 127.0.0.2",
                   rig.tls_port, rig.directory, rig.directory, ca_file);
    redis_rig_start(&rig, options);
    counting_plan_has_the_same_lines();
    commands_are_answered_in_order();
    arrays_come_with_all_their_elements();
    large_commands_pass_a_smaller_buffer();
    more_than_all_buffers_hold_goes_through_in_one_pipeline();
    kept_commands_can_be_given_again();
    users_and_passwords_are_told_apart();
    unix_socket_serves_like_a_port();
    nobody_there_is_told_by_name();
    stopped_server_is_given_up_in_time();
    too_many_clients_means_later();
    tls_is_for_the_right_host_and_authority_only();
    tls_carries_as_much_as_a_plain_connection();
    missing_authority_is_told_at_once();
    garbage_and_cut_replies_close_the_connection();
    two_sides_that_only_send_do_not_block_each_other();
    replies_without_end_are_cut_off();
    reply_that_trickles_is_given_up();
    what_it_says_is_told_without_password_and_control_characters();
    redis_rig_close(&rig);
    puts("22 passed, 0 failed");
    return 0;
}
