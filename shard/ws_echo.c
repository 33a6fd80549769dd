/* ws_echo.c - ws-echo: damso's loop, connections and WebSocket codec with a session that sends back
 * what it gets. For conformance suites; never installed. */
#include "core/log.h"
#include "shard/options.h"
#include "shard/rest.h"
#include "shard/server.h"

#include <signal.h>
#include <stdio.h>
#include <time.h>

extern char **environ;

static bool echo_request(struct conn *conn, const struct http_request *request, struct slice body)
{
    (void)body;
    (void)rest_upgrade(conn, request);
    return true;
}

static void echo_message(struct conn *conn, enum ws_opcode opcode, const char *text, uint32_t size)
{
    conn_write_frame(conn, opcode, (struct slice){text, size});
}

static void echo_closed(struct conn *conn)
{
    (void)conn;
}

static const struct service echo = {
    .request = echo_request, .message = echo_message, .closed = echo_closed};

int main(int count, char **words)
{
    static struct config config;
    static struct server server;
    struct options options;
    char why[512] = "";
    sigset_t signals;
    int got = 0;

    if (options_read(count, words, environ, &config, &options) < 0) {
        return EXIT_USAGE;
    }
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    const struct server_options server_options = {
        .config = &config, .service = &echo, .shards = options.shards};
    enum exit_code failure = server_open(&server, &server_options, why, sizeof(why));
    failure = failure == EXIT_OK ? server_start(&server, why, sizeof(why)) : failure;
    if (failure != EXIT_OK) {
        log_error("cannot start: %s", why);
        server_stop(&server);
        return (int)failure;
    }
    (void)printf("ws-echo: ready at http://%s:%u\n", config.server_listen, server.port);
    (void)fflush(stdout);
    (void)sigwait(&signals, &got);
    server_stop(&server);
    return EXIT_OK;
}
