/*
 * test_options.c - the command line, the environment and the file come together as they should:
 *                  later sources win, and every mistake is an error.
 *
 * Method: argument lists as main has them; a configuration file in a directory of the test's own.
 */
#include "core/check.h"
#include "shard/options.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { WORDS_MAX = 8 };

static struct config config;
static struct options options;
static char directory[] = "options-XXXXXX"; /* where the test is run */

static int read_words(const char *first, const char *second, const char *third, char *environment)
{
    char words[WORDS_MAX][256];
    char *list[WORDS_MAX + 1] = {NULL};
    const char *const given[] = {"damsod", first, second, third};
    char *const environ_list[] = {environment, NULL};
    int count = 0;
    for (uint32_t i = 0; i < sizeof(given) / sizeof(given[0]) && given[i] != NULL; i++) {
        (void)snprintf(words[i], sizeof(words[i]), "%s", given[i]);
        list[count++] = words[i];
    }
    return options_read(count, list, environ_list, &config, &options);
}

static void nothing_given_means_the_defaults(void)
{
    CHECK(read_words(NULL, NULL, NULL, NULL) == 0);
    CHECK(options.action == ACTION_RUN && !options.salvage);
    CHECK(config.server_port == 8080 && strcmp(config.server_data, "./data") == 0);
    CHECK(options.shards >= 1 && options.shards <= 64); /* one for each processor */
}

static void a_flag_takes_its_value_from_itself_or_the_next_word(void)
{
    CHECK(read_words("--port", "81", "--shards=3", NULL) == 0);
    CHECK(config.server_port == 81 && options.shards == 3);
    CHECK(read_words("--port=82", "--data", "here", NULL) == 0);
    CHECK(config.server_port == 82 && strcmp(config.server_data, "here") == 0);
    CHECK(read_words("--data=", NULL, NULL, NULL) == -EINVAL); /* of at least one character */
}

static void later_sources_win(void)
{
    char path[64];
    char flag[96];
    char variable[] = "DAMSO_SERVER_PORT=82";
    (void)snprintf(path, sizeof(path), "%s/damsod.conf", directory);
    (void)snprintf(flag, sizeof(flag), "--config=%s", path);
    FILE *file = fopen(path, "w");
    CHECK(file != NULL);
    CHECK(fputs("[server]\nport = 81\nshards = 2\n", file) >= 0 && fclose(file) == 0);
    CHECK(read_words(flag, NULL, NULL, NULL) == 0);
    CHECK(config.server_port == 81 && options.shards == 2);
    CHECK(read_words(flag, NULL, NULL, variable) == 0);
    CHECK(config.server_port == 82 && options.shards == 2);
    CHECK(read_words("--port=83", flag, NULL, variable) == 0);
    CHECK(config.server_port == 83 && options.shards == 2);
    CHECK(read_words("--config", path, "--shards=4", NULL) == 0);
    CHECK(config.server_port == 81 && options.shards == 4);
    CHECK(unlink(path) == 0);
    CHECK(read_words(flag, NULL, NULL, NULL) == -EINVAL); /* a file that is not there */
}

static void actions_are_told_apart(void)
{
    static const struct {
        const char *flag;
        enum option_action action;
    } rows[] = {{"--check-config", ACTION_CHECK}, {"--print-default-config", ACTION_PRINT_DEFAULT},
                {"--plan", ACTION_PLAN},          {"--version", ACTION_VERSION},
                {"--help", ACTION_HELP},          {"--salvage", ACTION_RUN}};
    for (uint32_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        CHECK(read_words(rows[i].flag, "--port=1", NULL, NULL) == 0);
        CHECK(options.action == rows[i].action && config.server_port == 1);
        CHECK(options.salvage == (strcmp(rows[i].flag, "--salvage") == 0));
    }
}

static void every_mistake_is_an_error(void)
{
    static const char *const wrong[] = {
        "--prot=80", "port",        "--port",    "--port=-1",  "--port=65536", "--shards=65",
        "--plan=on", "--salvage=1", "--config=", "--port=80x", "-p",           "--",
        "",          "--listen=",   "--data",
    };
    char variable[] = "DAMSO_SERVER_PROT=80";
    for (uint32_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK(read_words(wrong[i], NULL, NULL, NULL) == -EINVAL);
    }
    CHECK(read_words(NULL, NULL, NULL, variable) == -EINVAL);      /* nearly a key of ours */
    CHECK(read_words("--shards=64", NULL, NULL, NULL) == -EINVAL); /* more than the journal fits */
}

int main(void)
{
    CHECK(mkdtemp(directory) != NULL);

    nothing_given_means_the_defaults();
    a_flag_takes_its_value_from_itself_or_the_next_word();
    later_sources_win();
    actions_are_told_apart();
    every_mistake_is_an_error();
    CHECK(rmdir(directory) == 0);
    puts("5 passed, 0 failed");
    return 0;
}
